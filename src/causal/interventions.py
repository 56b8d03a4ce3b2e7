"""What is written in place of an activation.

An intervention is called with the clean activations of a batch and returns the new ones of the edited tokens, in the
order of `clean.edited.nonzero()`. Each is a small frozen class; anything with `sources` and this call is one too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.operator import TransportOperator

# Directions whose part outside the span of the others is below this share of their length add nothing but rounding.
_DEPENDENT = 1e-5


@dataclass(frozen=True, eq=False)
class CleanStates:
    """The clean activations of one batch, and where one condition writes.

    target: where it writes. activations: [batch, pos, d_model] at the target and at the intervention's sources, all
    without their offsets. is_token: false for padding. edited: the tokens that are overwritten; never padding, and
    never where a source with an offset has no token.
    """

    target: HookPoint
    activations: Mapping[HookPoint, Float[Tensor, "batch pos d_model"]]
    is_token: Bool[Tensor, "batch pos"]
    edited: Bool[Tensor, "batch pos"]

    def rows(self, point: HookPoint) -> Float[Tensor, "edited d_model"]:
        """The clean activations at a point: of the edited tokens, or of those that its offset leads to from them."""
        activations = self.activations[point.at(0)]
        if not point.offset:
            return activations[self.edited]
        row, position = self.edited.nonzero(as_tuple=True)
        return activations[row, position + point.offset]

    def target_rows(self) -> Float[Tensor, "edited d_model"]:
        """The clean activations that are overwritten."""
        return self.rows(self.target)


class Intervention(Protocol):
    """What is written; `sources` are the points whose clean activations it reads beside those of the target."""

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """Points to capture; an offset counts from the edited token (-1: the token before it)."""
        ...

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """The new activations of the edited tokens, on the device of the clean ones."""
        ...


@dataclass(frozen=True)
class Transport:
    """The operator's prediction from the clean activations of its source: at token j from token j - offset."""

    operator: TransportOperator

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """The operator's source, as seen from its target."""
        return (source_seen_from_target(self.operator),)

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """Computed on the model's device; an operator that lies elsewhere is copied there for every batch."""
        x = clean.rows(*self.sources)
        operator = self.operator if self.operator.weight.device == x.device else self.operator.to(x.device)
        return operator(x)


@dataclass(frozen=True, eq=False)
class Constant:
    """The same vector at every edited token: zero ablation, mean ablation, or an operator of zero (its bias)."""

    value: Float[Tensor, "d_model"]

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """None."""
        return ()

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """The vector, once for each edited token."""
        return self.value.to(clean.is_token.device).expand(int(clean.edited.sum()), -1)


@dataclass(frozen=True)
class CopySource:
    """The clean activations of another point, as they are: what an identity operator predicts.

    source: an offset counts from the edited token.
    """

    source: HookPoint

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """The point that is copied."""
        return (self.source,)

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """x_L in place of x_M."""
        return clean.rows(self.source)


@dataclass(frozen=True)
class OnTokensWith:
    """Another intervention, on the tokens that have such a source: those that a transport with an offset edits."""

    source: HookPoint
    inner: "Intervention"

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """Those of the other intervention, and the source that decides which tokens are edited."""
        return tuple(dict.fromkeys((*self.inner.sources, self.source)))

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """What the other one writes."""
        return self.inner(clean)


@dataclass(frozen=True)
class KeepClean:
    """The clean activations themselves: an edit that must change nothing."""

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """None."""
        return ()

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """x_M in place of x_M."""
        return clean.target_rows()


@dataclass(frozen=True)
class Resample:
    """The clean activation at the same position of another sequence of the batch (resample ablation).

    Sequences stand in a random circle, which depends on the seed and the number of sequences alone; the donor of a
    token is the next sequence of the circle that reaches its position. So at each position donors are a derangement of
    the sequences that reach it. Where no other does, the last token of the longest other sequence is taken.
    """

    seed: int

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """None."""
        return ()

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """Raises StrataError if the batch is a single sequence."""
        n_sequences, device = len(clean.is_token), clean.is_token.device
        if n_sequences < 2:
            raise StrataError("resampling needs another sequence in the batch: use a batch_size of at least 2")
        circle = torch.randperm(n_sequences, generator=torch.Generator().manual_seed(self.seed))
        steps = torch.arange(1, n_sequences)
        others = circle[(circle.argsort()[:, None] + steps) % n_sequences].to(device)  # [sequence, step]
        length = clean.is_token.sum(1)
        row, position = clean.edited.nonzero(as_tuple=True)
        reaches = length[others[row]] > position[:, None]
        step = torch.where(reaches.any(1), reaches.int().argmax(1), length[others[row]].argmax(1))
        donor = others[row, step]
        return clean.activations[clean.target][donor, torch.minimum(position, length[donor] - 1)]


@dataclass(frozen=True, eq=False)
class AlongDirections:
    """Only the component along some directions is replaced by that of another intervention: y + (y_new - y) D D'.

    basis: orthonormal columns D (`orthonormal_basis` makes them).
    """

    basis: Float[Tensor, "d_model direction"]
    inner: Intervention

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """Those of the other intervention."""
        return self.inner.sources

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """Computed in the wider dtype of the basis and the activations."""
        y, new = clean.target_rows(), self.inner(clean)
        dtype = torch.promote_types(torch.promote_types(y.dtype, new.dtype), self.basis.dtype)
        basis = self.basis.to(y.device, dtype)
        return y.to(dtype) + (new.to(dtype) - y.to(dtype)) @ basis @ basis.T


@runtime_checkable
class Selective(Protocol):
    """An intervention that leaves some of the tokens that it may edit as they are."""

    def edits(self, clean: CleanStates) -> Bool[Tensor, "batch pos"]:
        """Of `clean.edited`, the tokens that it changes."""
        ...


def edited_tokens(intervention: Intervention, clean: CleanStates) -> Bool[Tensor, "batch pos"]:
    """Of the tokens that may be edited, those that an intervention changes; all, if it does not choose."""
    inner = intervention.inner if isinstance(intervention, OnTokensWith) else intervention
    return inner.edits(clean) if isinstance(inner, Selective) else clean.edited


def is_selective(intervention: Intervention) -> bool:
    """Whether what is edited depends on the activations."""
    return isinstance(intervention.inner if isinstance(intervention, OnTokensWith) else intervention, Selective)


def source_seen_from_target(operator: TransportOperator) -> HookPoint:
    """An operator's source, with the offset that leads to it from the token of its target."""
    return operator.source.at(operator.source.offset - operator.target.offset)


def place_of_operator(intervention: Intervention) -> HookPoint | None:
    """The place that an intervention's operator was fitted for, without its offset; None if it holds no operator."""
    if isinstance(intervention, Transport):
        return intervention.operator.target.at(0)
    inner = getattr(intervention, "inner", None)
    return None if inner is None else place_of_operator(inner)


def orthonormal_basis(directions: Float[Tensor, "direction d_model"]) -> Float[Tensor, "d_model direction"]:
    """Orthonormal columns that span the given directions; float64 inside, in their dtype and on their device.

    Raises:
        StrataError: a direction is zero, not finite, or a combination of those before it.
    """
    columns = directions.detach().cpu().double().T
    length = columns.norm(dim=0)
    if not (length.isfinite() & (length > 0)).all():
        raise StrataError("a direction is zero, NaN or infinite: it spans nothing")
    basis, upper = torch.linalg.qr(columns / length)
    if len(upper) < columns.shape[1] or (upper.diagonal().abs() < _DEPENDENT).any():
        raise StrataError(
            f"the {columns.shape[1]} directions are linearly dependent: leave out those that are combinations of others"
        )
    return basis.to(directions)
