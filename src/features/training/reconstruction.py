"""How well SAEs reconstruct: sums over documents, whose tokens depend on each other, and ratios with intervals."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.products import arithmetic_device
from src.features.sae import Sae

_FEATURES_AT_ONCE = 2**25  # numbers in one batch of feature activations


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums over documents with its 95 % interval; low and high are NaN where there is one document."""

    value: float
    low: float
    high: float


def ratio_of_sums(above: Float[Tensor, " document"], below: Float[Tensor, " document"]) -> Ratio:
    """Ratio of sums over documents, with the linearised standard error (Cochran 1977, *Sampling Techniques*, 6.4)."""
    n, value = len(above), float(above.sum() / below.sum())
    if n < 2:
        return Ratio(value, float("nan"), float("nan"))
    deviation = above - value * below
    error = float((deviation.square().sum() * n / (n - 1)).sqrt() / below.sum().abs())
    return Ratio(value, value - 1.96 * error, value + 1.96 * error)


@dataclass(frozen=True)
class Reconstruction:
    """fvu: sum |x - reconstruction|^2 / sum |x - mean|^2. l0: mean number of features that are not 0.

    dead: share of the features that are 0 in all of the rows. squares: sum |x - mean|^2.
    """

    fvu: Ratio
    l0: Ratio
    dead: float
    squares: float
    n_rows: int
    n_documents: int


class ReconstructionSums:
    """Sums from which a `Reconstruction` comes. Memory: d_model numbers per document."""

    def __init__(self) -> None:
        self._documents: list[Int[Tensor, " document"]] = []
        self._sums: list[Float[Tensor, "document sum"]] = []
        self._pilot: Float[Tensor, " d_model"] | None = None
        self.fired: Bool[Tensor, " feature"] | None = None

    def add(self, sae: Sae, rows: Float[Tensor, "row d_model"], document: Int[Tensor, " row"]) -> None:
        """Encode and decode rows, of which document i has those with document == i; on the SAE's device."""
        device = next(sae.module.parameters()).device
        exact = arithmetic_device(device)
        at_once = max(1, _FEATURES_AT_ONCE // sae.n_features)
        for batch, of_batch in zip(rows.split(at_once), document.split(at_once), strict=True):
            if not len(batch):
                continue
            x = batch.to(device, torch.float32)
            features, reconstruction = sae.reconstruct(x)
            is_active = features != 0
            fired = is_active.any(0)
            self.fired = fired if self.fired is None else self.fired | fired
            error, true = (x - reconstruction).to(exact).double(), x.to(exact).double()
            self._pilot = true.mean(0) if self._pilot is None else self._pilot
            true = true - self._pilot
            scalars = [torch.ones_like(true[:, 0]), error.square().sum(1)]
            scalars += [is_active.sum(1).to(exact).double(), true.square().sum(1)]
            found, place = torch.unique(of_batch, return_inverse=True)
            self._keep(found, place.to(exact), torch.cat([torch.stack(scalars, 1), true], 1))
        # one row per document from here on, however many batches and parts it came in
        if len(self._sums) > 1:
            found, place = torch.unique(torch.cat(self._documents), return_inverse=True)
            values = torch.cat(self._sums)
            self._documents, self._sums = [], []
            self._keep(found, place.to(exact), values)

    def _keep(self, documents: Tensor, place: Tensor, values: Float[Tensor, "row sum"]) -> None:
        total = values.new_zeros(len(documents), values.shape[1])
        self._documents.append(documents)
        self._sums.append(total.index_add_(0, place, values))

    def result(self) -> Reconstruction | None:
        """None if no row was added; squares of 0 and an FVU that means nothing if the rows do not vary.

        In the interval of FVU the mean of the denominator counts as known: the denominator is smallest there, so its
        derivative is 0.
        """
        if not self._sums or self.fired is None:
            return None
        count, sse, l0, square = self._sums[0][:, :4].unbind(1)
        shifted = self._sums[0][:, 4:]
        mean = shifted.sum(0) / count.sum()
        sst = square - 2 * shifted @ mean + count * (mean @ mean)
        fvu = ratio_of_sums(sse, sst)
        return Reconstruction(
            fvu=Ratio(fvu.value, max(fvu.low, 0.0), fvu.high),
            l0=ratio_of_sums(l0, count),
            dead=float((~self.fired).double().mean()),
            squares=float(sst.sum()),
            n_rows=int(count.sum()),
            n_documents=len(count),
        )
