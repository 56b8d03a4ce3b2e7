"""Everything that is measured of one stack of layers, in one pass over texts, by running sums."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.geometry.layers.cosines import CosineStatistics, CosineSums
from src.geometry.layers.dimensions import DimensionStatistics, DimensionSums
from src.geometry.layers.norms import NormStatistics, NormSums
from src.geometry.layers.sites import Site
from src.geometry.layers.texts import TextBlock
from src.geometry.layers.updates import IncrementStatistics, IncrementSums, UpdateStatistics, UpdateSums

# groups of documents of the delete-a-group jackknife, if their Gram matrices are not larger than this together
JACKKNIFE_GROUPS = 10
_MOST_GROUP_BYTES = 2 * 2**30


@dataclass(frozen=True)
class LayerSettings:
    """n_replicates: of the bootstrap, the point estimate counted. n_positions: of the curve over positions."""

    n_replicates: int
    n_positions: int


@dataclass(frozen=True, eq=False)
class SiteStatistics:
    """One site."""

    site: Site
    norms: NormStatistics
    cosines: CosineStatistics
    dimensions: DimensionStatistics


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """One stack. updates, increments: by the block's index, where what is needed of it was there."""

    d_model: int
    sites: list[SiteStatistics]
    updates: dict[int, UpdateStatistics]
    increments: dict[int, IncrementStatistics]


class LayerSums:
    """Running sums over blocks of texts: `begin`, `take` each site in the order of `sites`, and again.

    Memory: (groups + 1) d^2 float64 numbers for each site, and of a block the last stream's and attention's rows.
    """

    def __init__(
        self, sites: Sequence[Site], d_model: int, settings: LayerSettings, device: torch.device | str = "cpu"
    ) -> None:
        """device: must know float64. Raises StrataError if the Gram matrices would not fit into memory."""
        device = torch.device(device)
        self.sites, self._d_model = tuple(sites), d_model
        self._n_groups = _groups_that_fit(len(sites), d_model, device)
        n = settings.n_replicates
        self._norms = {site: NormSums(n, settings.n_positions, device) for site in sites}
        self._cosines = {site: CosineSums(n, d_model, device) for site in sites}
        self._dimensions = {site: DimensionSums(n, self._n_groups, d_model, device) for site in sites}
        layers = {site.layer for site in sites if site.kind == "stream"}
        self._updates = {layer: UpdateSums(n, device) for layer in sorted(layers) if layer - 1 in layers}
        both = {site.layer for site in sites if site.kind == "attn_out"} & {
            site.layer for site in sites if site.kind == "mlp_out"
        }
        self._increments = {layer: IncrementSums(n, device) for layer in sorted(both)}

    def begin(self, block: TextBlock) -> None:
        """The next rows are those of these texts."""
        self._block = block
        self._stream: tuple[int, Tensor] | None = None
        self._increment: tuple[Site, Tensor] | None = None

    def take(self, site: Site, rows: Float[Tensor, "token d_model"]) -> None:
        """Add the states of all tokens of the block at one site; they may be overwritten afterwards.

        Raises StrataError if a state is not finite whose token does not say so.
        """
        block = self._block
        rows = rows.to(block.device)
        norms = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
        self._refuse_non_finite(site, norms)
        self._norms[site].add(norms, block)
        counted, of_counted = rows[block.counted], norms[block.counted]
        if len(counted):
            self._cosines[site].add(counted, of_counted, block)
            self._dimensions[site].add(counted, of_counted, block)
            self._relate(site, counted)

    def _relate(self, site: Site, rows: Float[Tensor, "counted d_model"]) -> None:
        """To the stream before the block, and to the block's other increment."""
        if site.kind == "stream":
            if self._stream is not None and site.layer in self._updates:
                layer, before = self._stream
                if layer == site.layer - 1:
                    self._updates[site.layer].add_pair(before, rows, self._block)
            self._stream = site.layer, rows
        elif site.layer in self._increments:
            if self._increment is None or self._increment[0].layer != site.layer:
                self._increment = site, rows
            else:
                # a parallel block may compute its MLP first
                other = self._increment[1]
                attention, mlp = (other, rows) if site.kind == "mlp_out" else (rows, other)
                self._increments[site.layer].add_pair(attention, mlp, self._block)

    def _refuse_non_finite(self, site: Site, norms: Float[Tensor, "token"]) -> None:
        bad = ~norms.isfinite() & self._block.readable
        if bad.any():
            raise StrataError(
                f"{site.name} of {int(bad.sum())} tokens is not finite: run the model in a wider dtype "
                "(model.dtype=float32 or bfloat16), or measure a store that was collected with non_finite=mask"
            )

    def profile(self) -> LayerProfile:
        """What the sums say. Raises StrataError if no token was counted."""
        if not self.sites or not bool(self._norms[self.sites[0]].statistics().n):
            raise StrataError("no token is counted in statistics: read more text, or longer sequences")
        return LayerProfile(
            self._d_model,
            [
                SiteStatistics(
                    site,
                    self._norms[site].statistics(),
                    self._cosines[site].statistics(),
                    self._dimensions[site].statistics(len(self.sites)),
                )
                for site in self.sites
            ],
            {layer: sums.statistics() for layer, sums in self._updates.items()},
            {layer: sums.statistics() for layer, sums in self._increments.items()},
        )


def _groups_that_fit(n_sites: int, d_model: int, device: torch.device) -> int:
    """Groups of the jackknife; StrataError if not even one Gram matrix for each site fits."""
    gram = 8 * n_sites * d_model**2
    n_groups = JACKKNIFE_GROUPS if JACKKNIFE_GROUPS * gram <= _MOST_GROUP_BYTES else 1
    needed = (n_groups + 1) * gram
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise StrataError(
            f"the Gram matrices of {n_sites} sites of width {d_model} need {needed / 2**30:,.1f} GiB of memory, and "
            f"{free / 2**30:,.1f} GiB are free: choose fewer layers (layers.layers=[0,8,16])"
        )
    return n_groups
