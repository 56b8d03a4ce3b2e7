"""All that is measured of the heads of one attention layer, each number beside its nulls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import betainc
from torch import Tensor

from src.geometry.circuits.biases import bias_share
from src.geometry.circuits.forms import SCALE_FREE, paired_statistics, symmetries, top_directions
from src.geometry.circuits.nulls import (
    NullComparison,
    Pairing,
    compare,
    gaussian_forms,
    own_and_others,
    pairing,
    permuted_means,
)
from src.geometry.circuits.output import gaussian_copying, output_statistics, paired_copying
from src.models.checkpoint.attention import AttentionWeights

# of QK forms those without a scale, and of OV circuits
COPYING, TOKEN_COPYING = "copying", "token_copying"
COMPARED = (*SCALE_FREE, COPYING, TOKEN_COPYING)


# what a head without alignment has
CENTRES = {"positive_mass": 0.5, "symmetry": 0.0, COPYING: 0.0, TOKEN_COPYING: 0.0}


@dataclass(frozen=True, eq=False)
class LayerMean:
    """A mean over the heads of a layer, and over those of each dealing of heads to other heads' keys."""

    value: float
    permuted: Float[Tensor, "draw"]

    @property
    def test(self) -> NullComparison:
        """The one against the others."""
        return compare(self.permuted.new_tensor([self.value]), self.permuted)[0]


@dataclass(frozen=True, eq=False)
class HeadStatistic:
    """One number of every head of a layer, beside what chance gives.

    random: against independent Gaussian matrices; None where those say nothing. others: against queries (or outputs)
    with other heads' keys (values). mean: over heads, and strength: the mean distance from the value without alignment
    (heads may lie on either side of it), both against dealings of heads to others' keys; None where all heads share one
    key.
    """

    values: Float[Tensor, "head"]
    random: Sequence[NullComparison] | None
    others: Sequence[NullComparison]
    mean: "LayerMean | None"
    strength: "LayerMean | None"


@dataclass(frozen=True, eq=False)
class LayerCircuits:
    """Of one attention layer.

    n_dealings: different dealings of queries to keys. statistics: by the names of COMPARED. plain: numbers of heads
    that have no null (norms, counts, biases). offsets: symmetry of forms whose key stands so many tokens before the
    query, by that number; empty without rotary positions. top_overlap: squared cosine of the top eigenvector of the
    symmetric part with the mean embedding, and its p for a random direction; None without embeddings.
    """

    stack: str
    layer: int
    attention: str
    label: str
    n_kv_heads: int
    n_dealings: int
    statistics: Mapping[str, HeadStatistic]
    plain: Mapping[str, Float[Tensor, "head"]]
    offsets: Mapping[int, HeadStatistic]
    top_overlap: Float[Tensor, "head"] | None
    top_overlap_p: Float[Tensor, "head"] | None

    @property
    def n_heads(self) -> int:
        """Query heads."""
        return len(self.plain["norm"])


@dataclass(frozen=True)
class Embedded:
    """What embeddings add: the mean embedding, and E'U of embeddings and unembeddings (its norm folded)."""

    mean: Float[Tensor, "d_model"] | None = None
    through: Float[Tensor, "d_model d_model"] | None = None


class CircuitProfiler:
    """Measures layer after layer, with one source of random numbers; Gaussian draws of a shape are made once."""

    def __init__(self, embedded: Embedded, offsets: Sequence[int], draws: int, null_heads: int, seed: int) -> None:
        self.embedded = embedded
        self.offsets = offsets
        self.draws = draws
        self.null_heads = null_heads
        self.rng = np.random.default_rng(seed)
        self._forms: dict[tuple[int, int], Mapping[str, Tensor]] = {}
        self._copying: dict[tuple[int, int], Tensor] = {}

    def profile(self, layer: AttentionWeights) -> LayerCircuits:
        """Measure one layer."""
        device = layer.q.device
        paired = pairing(len(layer.q), len(layer.k), self.null_heads, self.rng)
        q, k = layer.q, layer.k[paired.own.to(device)]
        statistics, plain = self._forms_of(layer, paired)
        outputs = output_statistics(layer.v[paired.own.to(device)], layer.o)
        plain |= {"ov_norm": outputs.norm, "ov_stable_rank": outputs.stable_rank}
        plain["ov_positive_fraction"] = outputs.positive_fraction
        for name, through in ((COPYING, None), (TOKEN_COPYING, self.embedded.through)):
            if name == COPYING or (through is not None and layer.v.shape[-1] == len(through)):
                scores = paired_copying(layer.v, layer.o, paired.query_head, paired.key_head, through)
                shape = (layer.v.shape[-1], layer.v.shape[1])
                drawn = self._gaussian_copying(shape) if through is None else None
                statistics[name] = self._compared(paired.matrix(scores.cpu()), paired, drawn, CENTRES[name])
        for name, bias, other in (("q_bias_share", layer.q_bias, layer.k), ("k_bias_share", layer.k_bias, layer.q)):
            if bias is not None:
                of_head = bias if name == "q_bias_share" else bias[paired.own.to(device)]
                against = other[paired.own.to(device)] if name == "q_bias_share" else other
                plain[name] = bias_share(of_head, against, plain["norm"].to(device))
        share, direction = top_directions(q, k)
        plain["top_eigenvalue_share"] = share
        overlap = p = None
        if self.embedded.mean is not None and len(self.embedded.mean) == layer.q.shape[-1]:
            mean = self.embedded.mean.to(device)
            overlap = (direction @ (mean / mean.norm())).square().cpu()
            # the squared cosine of a random direction has a Beta(1/2, (d - 1)/2) distribution
            p = 1 - torch.from_numpy(betainc(0.5, (len(mean) - 1) / 2, overlap.clamp(0, 1).numpy()))
        return LayerCircuits(
            layer.stack, layer.layer, layer.attention, layer.label, len(layer.k), paired.n_dealings, statistics,
            {name: values.cpu() for name, values in plain.items()}, self._at_offsets(layer, paired), overlap, p,
        )  # fmt: skip

    def _forms_of(
        self, layer: AttentionWeights, paired: Pairing
    ) -> tuple[dict[str, HeadStatistic], dict[str, Float[Tensor, "head"]]]:
        """QK forms of all pairs of heads: a form needs keys that live in the space of the queries."""
        device = layer.q.device
        query_head, key_head = paired.query_head.to(device), paired.key_head.to(device)
        found = paired_statistics(layer.q, layer.k, query_head, key_head).by_name()
        drawn = self._gaussian_forms((layer.q.shape[-1] - layer.centred, layer.q.shape[1]))
        compared = {
            name: self._compared(paired.matrix(found[name].cpu()), paired, drawn[name], CENTRES.get(name))
            for name in SCALE_FREE
        }
        own = (paired.own[paired.query_head] == paired.key_head).to(device)
        return compared, {name: found[name][own] for name in ("norm", "positive_fraction")}

    def _at_offsets(self, layer: AttentionWeights, paired: Pairing) -> dict[int, HeadStatistic]:
        rotary = layer.rotary
        if rotary is None:
            return {}
        shape = (layer.q.shape[-1] - layer.centred, layer.q.shape[1])
        outside = paired.matrix(torch.zeros(len(paired.query_head), dtype=torch.float64))
        return {
            offset: self._compared(
                symmetries(layer.q, rotary.turned(layer.k, -offset)).cpu() + outside,
                paired,
                self._gaussian_forms(shape)["symmetry"],
                CENTRES["symmetry"],
            )
            for offset in self.offsets
        }

    def _compared(
        self,
        matrix: Float[Tensor, "head kv_head"],
        paired: Pairing,
        drawn: Float[Tensor, "draw"] | None,
        centre: float | None = None,
    ) -> HeadStatistic:
        own, others = own_and_others(matrix, paired)
        return HeadStatistic(
            own,
            None if drawn is None else compare(own, drawn),
            compare(own, others),
            self._layer_mean(matrix, paired),
            None if centre is None else self._layer_mean((matrix - centre).abs(), paired),
        )

    def _layer_mean(self, matrix: Float[Tensor, "head kv_head"], paired: Pairing) -> LayerMean | None:
        permuted = permuted_means(matrix, paired, self.draws, self.rng)
        own, _ = own_and_others(matrix, paired)
        return None if permuted is None else LayerMean(float(own.mean()), permuted)

    def _gaussian_forms(self, shape: tuple[int, int]) -> Mapping[str, Tensor]:
        if shape not in self._forms:
            self._forms[shape] = gaussian_forms(*shape, self.draws, self.rng).by_name()
        return self._forms[shape]

    def _gaussian_copying(self, shape: tuple[int, int]) -> Tensor:
        if shape not in self._copying:
            self._copying[shape] = gaussian_copying(*shape, self.draws, self.rng)
        return self._copying[shape]


def over_layers(layers: Sequence[LayerCircuits], name: str, which: Literal["mean", "strength"]) -> LayerMean | None:
    """The mean over all heads of all layers, and of dealings in every layer at once; None without such a null."""
    found: list[tuple[LayerMean, int]] = []
    for each in layers:
        mean = getattr(each.statistics[name], which) if name in each.statistics else None
        if mean is not None:
            found.append((mean, each.n_heads))
    total = sum(n_heads for _, n_heads in found)
    if not total:
        return None
    permuted = torch.stack([mean.permuted * n_heads for mean, n_heads in found]).sum(0) / total
    return LayerMean(sum(mean.value * n_heads for mean, n_heads in found) / total, permuted)
