"""What is written in place of an activation.

An intervention is called with the clean activations of a batch and returns the new ones of the edited tokens, in the
order of `clean.edited.nonzero()`. Each is a small frozen class; anything with `sources` and this call is one too.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

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

    target: where it writes. activations: [batch, pos, d_model] at the target and at the intervention's sources.
    is_token: false for padding. edited: the tokens that are overwritten; never padding.
    """

    target: HookPoint
    activations: Mapping[HookPoint, Float[Tensor, "batch pos d_model"]]
    is_token: Bool[Tensor, "batch pos"]
    edited: Bool[Tensor, "batch pos"]

    def rows(self, point: HookPoint) -> Float[Tensor, "edited d_model"]:
        """The clean activations of the edited tokens at a point."""
        return self.activations[point][self.edited]

    def target_rows(self) -> Float[Tensor, "edited d_model"]:
        """The clean activations that are overwritten."""
        return self.rows(self.target)


class Intervention(Protocol):
    """What is written; `sources` are the points whose clean activations it reads beside those of the target."""

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """Points to capture."""
        ...

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """The new activations of the edited tokens, on the device of the clean ones."""
        ...


@dataclass(frozen=True)
class Transport:
    """The operator's prediction from the clean activations of its source."""

    operator: TransportOperator

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """The operator's source."""
        return (self.operator.source,)

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """Computed on the model's device; an operator that lies elsewhere is copied there for every batch."""
        x = clean.rows(self.operator.source)
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
    """The clean activations of another point, as they are: what an identity operator predicts."""

    source: HookPoint

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """The point that is copied."""
        return (self.source,)

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """x_L in place of x_M."""
        return clean.rows(self.source)


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


class Dictionary(Protocol):
    """What an SAE (of SAELens, say) offers: latents of activations, and activations of latents."""

    def encode(self, x: Tensor, /) -> Tensor:
        """[token, d_model] -> [token, d_sae]."""
        ...

    def decode(self, latents: Tensor, /) -> Tensor:
        """[token, d_sae] -> [token, d_model]."""
        ...


@dataclass(frozen=True, eq=False)
class AlongLatents:
    """Only some latents of a dictionary are replaced by those of another intervention.

    y + decode(z_new) - decode(z), where z = encode(y) and z_new is z with the chosen latents of encode(y_new): what the
    dictionary does not reconstruct stays as it is.
    """

    dictionary: Dictionary
    latents: tuple[int, ...]
    inner: Intervention

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """Those of the other intervention."""
        return self.inner.sources

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """Computed on the model's device, where the dictionary must lie."""
        y = clean.target_rows()
        z = self.dictionary.encode(y)
        z_new = z.clone()
        chosen = list(self.latents)
        z_new[:, chosen] = self.dictionary.encode(self.inner(clean).to(y.dtype))[:, chosen]
        return y + self.dictionary.decode(z_new) - self.dictionary.decode(z)


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


def rotated_operator(operator: TransportOperator, source_mean: Float[Tensor, "d_in"], seed: int) -> TransportOperator:
    """A control with the spectrum of an operator and none of its directions: weight U W V', U and V random rotations.

    U and V are Haar-distributed orthogonal matrices. The bias is chosen so that the prediction at `source_mean` (the
    mean of the source over the training tokens) stays what it was.
    """
    weight = operator.weight.cpu().double()
    generator = torch.Generator().manual_seed(seed)
    left, right = (_random_orthogonal(size, generator) for size in weight.shape)
    rotated = left @ weight @ right.T
    bias = operator.bias.cpu().double() + source_mean.cpu().double() @ (weight - rotated)
    return replace(
        operator,
        weight=rotated.to(operator.weight),
        bias=bias.to(operator.bias),
        method=f"{operator.method}, rotated",
        metadata={**operator.metadata, "rotation_seed": seed},
    )


def _random_orthogonal(size: int, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """Haar measure: QR of a normal matrix with the signs of R's diagonal (Mezzadri 2007, section 5)."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def standard_interventions(
    operator: TransportOperator,
    source_mean: Float[Tensor, "d_in"],
    target_mean: Float[Tensor, "d_out"],
    seed: int,
) -> dict[str, Intervention]:
    """The operator and what it is compared with, by name: all of them for writing at `operator.target`.

    Those of `operator_interventions`, then those of `baseline_interventions`; identity is left out if the widths
    differ. The means are those over the training tokens.
    """
    baselines = baseline_interventions(operator.source, len(operator.bias), target_mean, seed)
    if operator.weight.shape[0] != operator.weight.shape[1]:
        del baselines["identity"]
    return {**operator_interventions(operator, source_mean, seed), **baselines}


def operator_interventions(
    operator: TransportOperator,
    source_mean: Float[Tensor, "d_in"],
    seed: int,
    names: Collection[str] = ("transport", "rotated", "null"),
) -> dict[str, Intervention]:
    """Those of some names: transport, rotated (which takes two decompositions to make), null (of zero: the bias)."""
    interventions: dict[str, Intervention] = {"transport": Transport(operator), "null": Constant(operator.bias)}
    if "rotated" in names:
        interventions["rotated"] = Transport(rotated_operator(operator, source_mean, seed))
    return {name: interventions[name] for name in names if name in interventions}


def baseline_interventions(
    source: HookPoint, d_out: int, target_mean: Float[Tensor, "d_out"] | None, seed: int
) -> dict[str, Intervention]:
    """What needs no operator: identity (the source copied), mean (left out if not known), resample, zero."""
    interventions: dict[str, Intervention] = {"identity": CopySource(source)}
    if target_mean is not None:
        interventions["mean"] = Constant(target_mean)
    return {**interventions, "resample": Resample(seed), "zero": Constant(torch.zeros(d_out))}
