"""The average Jacobian of the model itself as a transport operator: nothing is regressed.

J_t = d y_t / d x_t is exact at each sampled token t, with all earlier tokens held as they are; the operator's weight is
the mean of J_t' over the tokens (y = x @ weight + bias; Hernandez et al. 2023, arXiv 2308.09124, section 3).
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.collect import right_padded
from src.activations.moments import Moments
from src.activations.products import arithmetic_device, exact_products
from src.activations.sampling import TokenSample
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, forward_pass
from src.models.token_graph import TokenGraph
from src.transport.affine import AffineFit, bias_of
from src.transport.pairs import LayerPair

# Tokens at a time. One backward pass serves a batch: small ones are all overhead, on a GPU all launches of kernels.
_CPU_BATCH, _GPU_BATCH = 64, 256


@dataclass(frozen=True)
class MeanJacobian:
    """The average over tokens of d y_t / d x_t, transposed, and how far the sample of tokens decides it.

    relative_standard_error: |SE|_F / |mean|_F, from the differences between documents. half_split_cosine: of the means
    of two halves of the documents, taken as long vectors, less the identity between points of the residual stream
    (which the skip connection gives to both). Both are None for tokens of a single document.
    """

    weight: Float[Tensor, "d_in d_out"]
    n_tokens: int
    n_documents: int
    relative_standard_error: float | None
    half_split_cosine: float | None


def mean_jacobians(
    model: LanguageModel,
    pairs: Sequence[LayerPair],
    hook: str,
    sample: TokenSample,
    batch_size: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[LayerPair, MeanJacobian]:
    """The mean Jacobian of every pair over the tokens of the sample, added up in float64.

    One backward pass gives a row of the Jacobians of a target with respect to all of its sources, for a whole batch.
    Memory: four float64 arrays of the weight's shape for each pair, and the graph of a batch.

    Args:
        model: best in float32, whatever the checkpoint's dtype: rounding is not differentiated.
        pairs: sources and targets; `hook` may be any.
        hook: of both.
        sample: ordered by document.
        batch_size: tokens at a time; None = what suits the device.
        advance: is told the number of gradients done, of `gradients_to_take`.

    Raises:
        StrataError: a point or token that the model does not have, a batch that outgrows the memory, or derivatives
            that are not finite.
    """
    size = batch_size or (_CPU_BATCH if model.device.type == "cpu" else _GPU_BATCH)
    graph = TokenGraph(model)
    weighting = _Weighting.of(sample.document)
    device = arithmetic_device(model.device)
    by_target: dict[HookPoint, list[LayerPair]] = {}
    for pair in dict.fromkeys(pairs):
        by_target.setdefault(pair.target(hook), []).append(pair)
    sums = {target: _Sums(len(of_target), model.d_model, device) for target, of_target in by_target.items()}
    points = {point for pair in pairs for point in (pair.source(hook), pair.target(hook))}
    with exact_products():
        for first in range(0, len(sample), size):
            tokens = slice(first, first + size)
            ids, mask = right_padded(list(sample.sequences[tokens]))
            at = torch.from_numpy(sample.position[tokens])
            states = graph.states(ids, mask, at, points)
            rows = weighting.rows(tokens).to(device)
            with forward_pass(model, ids.shape):  # backward ones run out of memory in the same way
                for target, of_target in by_target.items():
                    sources = [states[pair.source(hook)] for pair in of_target]
                    for output, gradients in enumerate(_gradients(states[target], sources)):
                        of_batch = rows @ torch.stack(gradients).to(device).double()
                        sums[target].add(output, of_batch, weighting.goes_on(first))
                        advance(len(at))
    found: dict[LayerPair, MeanJacobian] = {}
    for target, of_target in by_target.items():
        found |= zip(of_target, sums[target].means(weighting, hook.startswith("resid")), strict=True)
    if broken := [str(pair) for pair, jacobian in found.items() if not jacobian.weight.isfinite().all()]:
        raise StrataError(
            f"the Jacobians of {', '.join(broken)} hold NaN or inf: check the activations of these layers, or try "
            "another attention implementation (model.attention=eager)"
        )
    return found


def gradients_to_take(pairs: Sequence[LayerPair], n_tokens: int, d_model: int) -> int:
    """What `mean_jacobians` counts: a gradient for each token, target and output dimension."""
    return n_tokens * d_model * len({pair.L + pair.k for pair in pairs})


def _gradients(target: Float[Tensor, "batch d_out"], sources: list[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """For each output dimension in turn its gradients with respect to all sources, [batch, d_in] each.

    (A loop: `is_grads_batched` takes up to three times as long on a CPU once a batch has 32 rows.)
    """
    for output in range(target.shape[1]):
        chosen = torch.zeros_like(target)
        chosen[:, output] = 1
        yield torch.autograd.grad(target, sources, chosen, retain_graph=True)


def fit_jacobian(
    moments: Moments, source: HookPoint, target: HookPoint, groups: Sequence[int], jacobian: MeanJacobian
) -> AffineFit:
    """The operator of a mean Jacobian: its bias maps the means of the rows of the groups onto each other.

    That is the best bias for the given weight in squared error, and what every other method has, so that operators
    differ in their weights alone.
    """
    total = moments.subset(groups)
    weight = jacobian.weight.to(total.mean(source))
    details = {name: value for name, value in vars(jacobian).items() if name != "weight"}
    return AffineFit(weight, bias_of(total, source, target, weight), None, None, len(weight), details)


@dataclass(frozen=True)
class _Weighting:
    """How the tokens, ordered by document, enter the sums; see `_Sums`."""

    document: Int[np.ndarray, " token"]
    size: Int[np.ndarray, " token"]
    in_first_half: Int[np.ndarray, " token"]

    @classmethod
    def of(cls, document: Int[np.ndarray, " token"]) -> "_Weighting":
        _, place, counts = np.unique(document, return_inverse=True, return_counts=True)
        first_half = np.cumsum(counts) - counts / 2 < len(document) / 2
        if len(counts) > 1:
            first_half[0], first_half[-1] = True, False
        return cls(place, counts[place], first_half[place])

    @property
    def counts(self) -> Int[np.ndarray, " document"]:
        return np.bincount(self.document)

    def goes_on(self, first: int) -> bool:
        """Whether the document of a token is that of the token before it."""
        return first > 0 and self.document[first] == self.document[first - 1]

    def rows(self, tokens: slice) -> Float[Tensor, "sum token"]:
        """Weights of a batch's tokens in its sums: of all, weighted by n_d, of the first half, of each document."""
        document = self.document[tokens]
        of_document = np.unique(document)[:, None] == document
        everything = np.ones(len(document))
        return torch.from_numpy(np.stack([everything, self.size[tokens], self.in_first_half[tokens], *of_document]))


class _Sums:
    """Sums over tokens of the Jacobians of one target, [source, d_out, d_in], from batches that may part a document.

    With S_d the sum over the n_d tokens of document d and m the mean over all n tokens, the variance of m between D
    documents (a ratio estimator's: Cochran 1977, section 9A.1) is  D / (D - 1) sum_d (S_d - n_d m)^2 / n^2  for each
    entry; its sum over entries needs sum_d |S_d|^2, sum_d n_d S_d (a sum over tokens weighted by n_d) and m.
    """

    def __init__(self, n_sources: int, d_model: int, device: torch.device) -> None:
        shape = n_sources, d_model, d_model
        self._total, self._weighted, self._first_half, self._open = torch.zeros(
            4, *shape, dtype=torch.float64, device=device
        )
        self._squares = torch.zeros(n_sources, dtype=torch.float64, device=device)

    def add(self, output: int, sums: Float[Tensor, "source sum d_in"], goes_on: bool) -> None:
        """Add one output dimension of a batch: `_Weighting.rows` times its gradients.

        goes_on: the first document of the batch was begun in the one before.
        """
        self._total[:, output] += sums[:, 0]
        self._weighted[:, output] += sums[:, 1]
        self._first_half[:, output] += sums[:, 2]
        of_document, begun = sums[:, 3:], self._open[:, output]
        if goes_on:
            of_document[:, 0] += begun
        else:
            self._squares += begun.square().sum(-1)
        self._squares += of_document[:, :-1].square().sum((1, 2))
        self._open[:, output] = of_document[:, -1]

    def means(self, weighting: _Weighting, less_identity: bool) -> Iterator[MeanJacobian]:
        """What the sums amount to, for each source in turn."""
        counts = torch.from_numpy(weighting.counts).to(self._total)
        n, n_documents, n_first = int(counts.sum()), len(counts), int(weighting.in_first_half.sum())
        squares = self._squares + self._open.square().sum((1, 2))
        for source, total in enumerate(self._total):
            mean = total / n
            error = cosine = None
            if n_documents > 1:
                products = (mean * self._weighted[source]).sum()
                spread = squares[source] - 2 * products + mean.square().sum() * counts.square().sum()
                variance = float(spread.clamp(min=0)) * n_documents / (n_documents - 1) / n**2
                error = math.sqrt(variance) / max(float(mean.norm()), sys.float_info.min)
                first = self._first_half[source]
                eye = torch.eye(len(mean)).to(mean) if less_identity else 0
                one, other = (first / n_first - eye).flatten(), ((total - first) / (n - n_first) - eye).flatten()
                cosine = float(torch.cosine_similarity(one, other, dim=0))
            yield MeanJacobian(mean.T.contiguous(), n, n_documents, error, cosine)
