"""Does what a turn expressed fade over later turns? Labelled conversations against controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.errors import StrataError
from src.scenarios.comparing.carry_over import half_life
from src.scenarios.comparing.labelled import FEW_CONVERSATIONS, FEWEST_CONVERSATIONS
from src.scenarios.comparing.lag_study import (
    Read,
    Study,
    curves,
    make_study,
    mean_by_lag,
    mean_by_turn,
    read_turns,
    resampled_curves,
    slope_of,
)
from src.scenarios.comparing.place_effect import PlaceEffect, place_effects
from src.scenarios.comparing.randomisation import null_range, permutation_p
from src.scenarios.comparing.to_references import reference_rows
from src.scenarios.comparing.turns import Turns, turns_of
from src.scenarios.states import RESIDUAL_SOURCES, Conversation, References

_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class SourceFading:
    """In units of the spread between reference texts, at each layer.

    curve: lag 0: mean over turns of the excess of the own label, whose words are in the text. Lag k >= 1: how much
        further a state lies along the direction of a label that was last said k turns before than along those of
        labels that were not said within max_lag turns; regression on all lags at once, within states, so that what
        place and length do to all directions alike has no part in it, less the mean of that over shuffled labels.
    low, high: 95 % bootstrap interval, NaN with too few conversations.
    null_low, null_high: what 95 % of the draws with shuffled labels give. p: that shuffled labels give as much, of
        the cell alone; p_corrected: for all layers, sources and lags >= 1 (for lag 0: layers and sources).
    slope: change of the curve per turn over lags >= 1, least squares weighted by pairs. slope_p, slope_p_corrected:
        that it falls as steeply with shuffled labels, against a carry-over that stays the same.
    half_life: in turns, where a label carries over at lag 1 and that falls with lag (both corrected p <= 0.05).
    projection: mean projection on the direction of the label that was last said so long ago, as it is. neutral: that
        of the neutral conversations at the same turns and directions; NaN without any.
    by_turn: excess of each turn's own label by its place, mean over conversations.
    place: how that changes with place when the same turns stand at other places; None without shuffled orders.
    """

    curve: Float[Tensor, "layer lag"]
    low: Float[Tensor, "layer lag"]
    high: Float[Tensor, "layer lag"]
    null_low: Float[Tensor, "layer lag"]
    null_high: Float[Tensor, "layer lag"]
    p: Float[Tensor, "layer lag"]
    p_corrected: Float[Tensor, "layer lag"]
    slope: Float[Tensor, "layer"]
    slope_low: Float[Tensor, "layer"]
    slope_high: Float[Tensor, "layer"]
    slope_p: Float[Tensor, "layer"]
    slope_p_corrected: Float[Tensor, "layer"]
    half_life: Float[Tensor, "layer"]
    projection: Float[Tensor, "layer lag"]
    neutral: Float[Tensor, "layer lag"]
    by_turn: Float[Tensor, "layer turn"]
    place: PlaceEffect | None


@dataclass(frozen=True, eq=False)
class Fading:
    """Turns of one role, read at one position.

    lags: in turns. pairs: how many pairs of turns each lag has. conversations, controls: their names; controls are
    neutral conversations whose projections at the same turn were subtracted.
    interval_over: what was drawn anew for intervals: conversations, or orders of the same turns (such intervals hold
        for these turns alone). reason: why nothing could be measured. notes: what to keep in mind.
    """

    position: str
    role: str
    layers: tuple[int, ...]
    labels: list[str]
    lags: list[int]
    pairs: Int[Tensor, "lag"]
    conversations: list[str]
    controls: list[str]
    interval_over: Literal["conversations", "orders"] | None
    draws: int
    by_source: Mapping[str, SourceFading]
    reason: str | None
    notes: list[str]


def fading(
    conversations: Sequence[Conversation],
    references: References,
    position: str,
    sources: Sequence[str] = RESIDUAL_SOURCES,
    *,
    role: str = "user",
    max_lag: int = 6,
    draws: int = 999,
    seed: int = 0,
) -> Fading:
    """How the label of a turn shows in its own state and in those of the turns after it.

    Directions (label - rest) come from the references alone. Null: the labels of the turns are shuffled within each
    conversation, neighbours of one label as one; each state keeps its own true label, which it is never read on at
    lags >= 1. So only which label went before is shuffled, while states, places and lengths stay. A p at lag k
    tells it from no carry-over at any lag.

    max_lag: 1 or more. Raises StrataError if the position was not captured.
    """
    if max_lag < 1:
        raise StrataError(f"max_lag={max_lag}: it takes one lag at least")
    rows = reference_rows(references, position)
    labels = references.labels
    every = [turns_of(conversation, labels, role) for conversation in conversations]
    turns = [
        one for one in every if not one.conversation.control and len({label for label in one.labels if label >= 0}) > 1
    ]
    controls = [one for one in every if one.conversation.control and len(one)]
    reason, notes, found = None, [], {}
    interval_over, weights = _replicates(turns, draws, seed)
    pairs = torch.zeros(max_lag + 1, dtype=torch.long)
    if len(labels) < 2:
        reason = "it takes reference states of two labels"
    elif not turns:
        reason = f"it takes a conversation with {role} messages of two labels that are among the references'"
    else:
        notes = _notes(turns, controls, interval_over)
        study = make_study(turns, controls, len(labels), max_lag, draws, seed)
        pairs = study.pairs
        read = {
            source: read_turns(study, references, source, position)
            for source in sources
            if source in rows and all(source in one.conversation.snapshot_rows for one in (*turns, *controls))
        }
        if read:
            excesses = {source: one.excess for source, one in read.items()}
            found = _tested(study, read, weights, place_effects(turns, excesses, study.usable, draws, seed))
    return Fading(
        position,
        role,
        rows.layers,
        labels,
        list(range(max_lag + 1)),
        pairs,
        [one.conversation.name for one in turns],
        [one.conversation.name for one in controls],
        interval_over,
        draws,
        found,
        reason,
        notes,
    )


def _notes(turns: Sequence[Turns], controls: Sequence[Turns], interval_over: str | None) -> list[str]:
    notes = ["lag 0: the turn's own words are in the text that its state is made of"]
    families = {one.family for one in turns}
    if not controls:
        notes.append("no neutral conversation: what place alone does to a label's direction is not subtracted")
    elif min(map(len, controls)) < max(map(len, turns)):
        notes.append("turns later than the longest neutral conversation are left out")
    if len(families) == len(turns):
        notes.append(
            "no shuffled orders: a turn's place and its text can't be told apart (prompt.orders reads the same turns "
            "in other orders)"
        )
    if interval_over is None:
        notes.append(f"no intervals: fewer than {FEWEST_CONVERSATIONS} conversations or orders")
    elif interval_over == "orders":
        notes.append("intervals are over orders of the same turns: they don't say what other texts would give")
    elif len(families) < FEW_CONVERSATIONS:
        notes.append("few conversations: bootstrap intervals are too narrow")
    return notes


def _replicates(
    turns: Sequence[Turns], draws: int, seed: int
) -> tuple[Literal["conversations", "orders"] | None, Float[Tensor, "draw conversation"] | None]:
    """What is drawn anew, and how often each conversation then counts."""
    families = {family: place for place, family in enumerate(dict.fromkeys(one.family for one in turns))}
    if len(families) >= FEWEST_CONVERSATIONS:
        over, unit = "conversations", [families[one.family] for one in turns]
    elif len(turns) >= FEWEST_CONVERSATIONS:
        over, unit = "orders", list(range(len(turns)))
    else:
        return None, None
    n = max(unit) + 1
    drawn = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed + 1))
    return over, torch.zeros(draws, n).scatter_add_(1, drawn, torch.ones(draws, n))[:, unit].double()


def _tested(
    study: Study,
    read: Mapping[str, Read],
    weights: Float[Tensor, "replicate conversation"] | None,
    places: Mapping[str, PlaceEffect] | None,
) -> dict[str, SourceFading]:
    made = {source: curves(study, one) for source, one in read.items()}
    observed = torch.stack([one.curve for one in made.values()])
    null = torch.stack([one.null_curve for one in made.values()], 1)
    p, together = torch.empty_like(observed), torch.empty_like(observed)
    for part in (slice(0, 1), slice(1, None)):
        p[..., part], together[..., part] = permutation_p(observed[..., part], null[..., part])
    slope_p, slope_together = permutation_p(
        -torch.stack([one.slope for one in made.values()]), -torch.stack([one.null_slope for one in made.values()], 1)
    )
    found = {}
    for place, (source, one) in enumerate(made.items()):
        low = high = torch.full_like(one.curve, float("nan"))
        slope_low = slope_high = torch.full_like(one.slope, float("nan"))
        if weights is not None:
            drawn = resampled_curves(study, read[source], one.parts, weights)
            low, high = null_range(drawn - one.bias)
            slope_low, slope_high = null_range(slope_of(drawn[..., 1:], study.pairs[1:]) - one.slope_bias)
        decays = (together[place, :, 1] <= _LEVEL) & (slope_together[place] <= _LEVEL)
        halves = [
            half_life(row[1:], study.pairs[1:]) if is_decay else float("nan")
            for row, is_decay in zip(one.curve - one.bias, decays.tolist(), strict=True)
        ]
        null_low, null_high = (bound - one.bias for bound in null_range(one.null_curve))
        found[source] = SourceFading(
            curve=(one.curve - one.bias).float(),
            low=low.float(),
            high=high.float(),
            null_low=null_low.float(),
            null_high=null_high.float(),
            p=p[place],
            p_corrected=together[place],
            slope=(one.slope - one.slope_bias).float(),
            slope_low=slope_low.float(),
            slope_high=slope_high.float(),
            slope_p=slope_p[place],
            slope_p_corrected=slope_together[place],
            half_life=torch.tensor(halves),
            projection=mean_by_lag(study, read[source].raw).float(),
            neutral=mean_by_lag(study, read[source].neutral).float(),
            by_turn=mean_by_turn(study, read[source].excess).float(),
            place=places[source] if places else None,
        )
    return found
