"""What conversations say of their labels turn by turn: projections less controls, and sums over turns and lags."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.scenarios.comparing.carry_over import LagDesign, NormalEquations, excess, lag_design, normal_equations
from src.scenarios.comparing.directions import contrast_directions
from src.scenarios.comparing.randomisation import shuffled_spells
from src.scenarios.comparing.turns import Turns
from src.scenarios.states import References


@dataclass(frozen=True, eq=False)
class Study:
    """What is the same for all sources.

    usable: turns that a neutral conversation reaches (all, if there is none). own: 1 at the label that a usable turn
    has, for the labels as they are and shuffled. pairs: number of turns (lag 0), and of turns and labels at each lag.
    """

    turns: Sequence[Turns]
    controls: Sequence[Turns]
    usable: list[Bool[Tensor, "turn"]]
    own: list[Float[Tensor, "draw+1 turn label"]]
    designs: list[LagDesign]
    pairs: Int[Tensor, "lag"]


@dataclass(frozen=True, eq=False)
class Read:
    """Of each conversation's turns on all labels' directions; 0 at turns that are not usable.

    raw: as they are. neutral: mean of the neutral conversations at the same turn (NaN without any). excess: raw less
    neutral, less the mean on the conversation's other labels.
    """

    raw: list[Float[Tensor, "layer turn label"]]
    neutral: list[Float[Tensor, "layer turn label"]]
    excess: list[Float[Tensor, "layer turn label"]]


def make_study(
    turns: Sequence[Turns], controls: Sequence[Turns], n_labels: int, max_lag: int, draws: int, seed: int
) -> Study:
    """Shuffles and designs of labelled conversations."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(map(len, controls), default=None)
    usable = [torch.arange(len(one)) < (len(one) if longest is None else longest) for one in turns]
    own, designs = [], []
    for one, where in zip(turns, usable, strict=True):
        histories = shuffled_spells(one.labels, draws, generator)
        member = torch.nn.functional.one_hot(histories.clamp(min=0), n_labels)
        own.append((member * ((histories >= 0) & where)[..., None]).double())
        designs.append(lag_design(one.labels, histories, n_labels, max_lag, where))
    now = torch.stack([member[0].sum() for member in own]).sum(0, keepdim=True)
    later = torch.stack([design.raw[0].sum((0, 1)) for design in designs]).sum(0)
    return Study(turns, controls, usable, own, designs, torch.cat([now, later]).long())


def read_turns(study: Study, references: References, source: str, position: str) -> Read:
    """Project the turns' states, in units of the spread between reference texts."""
    rows = references.rows[position]
    directions = contrast_directions(rows.layers, references, rows.get(source))
    raw = [directions.project(one.states(source, position)).double().cpu() for one in study.turns]
    longest = max(map(len, (*study.turns, *study.controls)))
    shape = (len(raw[0]), longest, raw[0].shape[-1])
    table = raw[0].new_full((max(len(study.controls), 1), *shape), float("nan"))
    for place, one in enumerate(study.controls):
        table[place, :, : len(one)] = directions.project(one.states(source, position))
    neutral = [table.nanmean(0)[:, : len(one)] for one in study.turns]
    corrected = [one - other for one, other in zip(raw, neutral, strict=True)] if study.controls else raw
    beyond = [excess(array, one.labels) for array, one in zip(corrected, study.turns, strict=True)]
    return Read(
        *(
            [torch.where(where[:, None], a, 0.0) for a, where in zip(arrays, study.usable, strict=True)]
            for arrays in (raw, neutral, beyond)
        )
    )


@dataclass(frozen=True, eq=False)
class Curves:
    """curve: mean excess on the own label (lag 0), and the coefficients of lags >= 1. slope: of those over lags.

    null_curve, null_slope: with shuffled labels, for each coefficient after the others were fitted and taken out of the
        values (Freedman and Lane 1983), and for the slope after a carry-over that is the same at all lags.
    bias, slope_bias: what shuffled labels give on average; 0 for lag 0.
    parts: each conversation's share in the regression.
    """

    curve: Float[Tensor, "layer lag"]
    slope: Float[Tensor, "layer"]
    null_curve: Float[Tensor, "draw layer lag"]
    null_slope: Float[Tensor, "draw layer"]
    bias: Float[Tensor, "layer lag"]
    slope_bias: Float[Tensor, "layer"]
    parts: list[NormalEquations]


def curves(study: Study, read: Read) -> Curves:
    """Of one source."""
    own = torch.stack(list(starmap(_on_own, zip(study.own, read.excess, strict=True)))).sum(0) / study.pairs[0]
    observed = slice(0, 1)
    parts = [normal_equations(one, e, observed) for one, e in zip(study.designs, read.excess, strict=True)]
    whole = sum(parts[1:], start=parts[0])
    lags = whole.columns.shape[-1]
    later = whole.solve()[0]
    # what to take out before labels are shuffled, [test, layer, lag]: a test for each lag, and one for the slope
    fitted = [whole.without(lag).solve()[0].nan_to_num(0) for lag in range(lags)]
    fitted.append((whole.values[0].sum(-1, keepdim=True) / whole.columns[0].sum().clamp(min=1e-12)).expand(-1, lags))
    drawn = []
    for design, e in zip(study.designs, read.excess, strict=True):
        rest = e - torch.einsum("xvk,tlk->xvtl", torch.stack(fitted), design.columns[0])
        drawn.append(normal_equations(design, rest.flatten(0, 1), slice(1, None)))
    null = sum(drawn[1:], start=drawn[0]).solve().unflatten(1, (lags + 1, -1))
    each = torch.stack([null[:, lag, :, lag] for lag in range(lags)], -1)
    slopes = slope_of(null[:, -1], study.pairs[1:])
    return Curves(
        torch.cat([own[0, :, None], later], -1),
        slope_of(later, study.pairs[1:]),
        torch.cat([own[1:, :, None], each], -1),
        slopes,
        torch.cat([torch.zeros_like(own[0, :, None]), each.nanmean(0)], -1),
        slopes.nanmean(0),
        parts,
    )


def slope_of(curve: Float[Tensor, "... lag"], pairs: Int[Tensor, "lag"]) -> Float[Tensor, "..."]:
    """Least squares slope over lags, weighted by pairs; lags without any left out, NaN with fewer than two."""
    weight = pairs.to(curve)
    lag = torch.arange(len(weight)).to(curve)
    about = weight * (lag - (weight * lag).sum() / weight.sum())
    return torch.where(weight > 0, curve, 0.0) @ about / (about @ lag)


def resampled_curves(
    study: Study, read: Read, parts: Sequence[NormalEquations], weights: Float[Tensor, "replicate conversation"]
) -> Float[Tensor, "replicate layer lag"]:
    """The curve with conversations counted so many times."""
    own = torch.stack([_on_own(member[:1], array)[0] for member, array in zip(study.own, read.excess, strict=True)])
    columns, values = torch.cat([part.columns for part in parts]), torch.cat([part.values for part in parts])
    weights = weights.to(own)
    turns = torch.stack([member[0].sum() for member in study.own]).to(own)
    later = NormalEquations(torch.tensordot(weights, columns, 1), torch.tensordot(weights, values, 1)).solve()
    return torch.cat([(weights @ own / (weights @ turns)[:, None])[..., None], later], -1)


def mean_by_lag(study: Study, arrays: Sequence[Float[Tensor, "layer turn label"]]) -> Float[Tensor, "layer lag"]:
    """Mean of what turns read on their own label, and on those that were last said 1, 2, ... turns before."""
    parts = []
    for array, member, design in zip(arrays, study.own, study.designs, strict=True):
        picked = torch.cat([member[0, ..., None], design.raw[0]], -1).to(array)
        parts.append(torch.einsum("tlk,vtl->vk", picked, array))
    return torch.stack(parts).sum(0) / study.pairs


def mean_by_turn(study: Study, arrays: Sequence[Float[Tensor, "layer turn label"]]) -> Float[Tensor, "layer turn"]:
    """Mean over conversations of what turns read on their own label; NaN at places where no turn has one."""
    longest = max(map(len, study.turns))
    total, count = arrays[0].new_zeros(len(arrays[0]), longest), arrays[0].new_zeros(longest)
    for array, member in zip(arrays, study.own, strict=True):
        total[:, : array.shape[1]] += (array * member[0].to(array)).sum(-1)
        count[: array.shape[1]] += member[0].sum(-1).to(array)
    return total / count


def _on_own(
    member: Float[Tensor, "draw turn label"], values: Float[Tensor, "layer turn label"]
) -> Float[Tensor, "draw layer"]:
    return torch.einsum("dtl,vtl->dv", member.to(values), values)
