"""Runs within themselves and against each other, at their first and last step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.scenarios.comparing.pair_metrics import PairMetrics, pair_metrics, pairwise_metrics
from src.scenarios.states import RESIDUAL_SOURCES, Run

State = Literal["initial", "final"]
STATES: tuple[State, ...] = ("initial", "final")
# what makes two models one, of what an artifact says of its model, where the digest of its weights does not tell
_IDENTITY = ("name", "path", "revision", "architecture", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_head")


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run under a name that is unique among the compared ones. model: what its artifact says of the model."""

    name: str
    run: Run
    model: Mapping[str, Any] = field(default_factory=dict)

    @property
    def generated(self) -> str:
        """What the model went on with."""
        return self.run.generation.text

    @property
    def prompt(self) -> str:
        """The last message before that."""
        return self.run.messages[-2].content if len(self.run.messages) > 1 else ""


@dataclass(frozen=True, eq=False)
class RunPair:
    """Two runs at one state. by_source: for each source metrics [layer]."""

    state: State
    first: ComparedRun
    second: ComparedRun
    by_source: Mapping[str, PairMetrics]

    @property
    def name(self) -> str:
        """Of the pair."""
        return f"{self.first.name} vs {self.second.name}"


@dataclass(frozen=True)
class Incomparable:
    """Why two runs, or some of their layers, were not compared."""

    first: str
    second: str
    reason: str


@dataclass(frozen=True, eq=False)
class RunComparisons:
    """All pairs at both states, and which were left out."""

    pairs: list[RunPair]
    left_out: list[Incomparable]


def within_run(run: Run, sources: Sequence[str] = RESIDUAL_SOURCES) -> dict[str, PairMetrics]:
    """The first against the last step of a run, for each source that it has: metrics [layer] (specification 3.1)."""
    return {
        source: pair_metrics(run.layers, run.initial(source), run.final(source))
        for source in sources
        if source in run.generation.rows
    }


def between_runs(
    runs: Sequence[ComparedRun], sources: Sequence[str] = RESIDUAL_SOURCES, *, across_models: bool = False
) -> RunComparisons:
    """All pairs of runs at their first and at their last step (specification 3.1).

    Runs of different models are left out, since their dimensions have nothing to do with each other; across_models
    compares them where widths are equal (a model and its fine-tuned version share dimensions). Layers that only one
    of the two has are left out. Both are told in `left_out`.
    """
    pairs, left_out = [], []
    tables: dict[tuple[object, ...], tuple[PairMetrics, list[int]]] = {}

    def metrics_of(first: int, second: int, state: State, source: str, layers: tuple[int, ...]) -> PairMetrics:
        """From one table of all runs that have these layers and this source."""
        width = runs[first].run.generation.rows.arrays[source].shape[-1]
        key = (state, source, layers, width)
        if key not in tables:
            able = [place for place, one in enumerate(runs) if _fits(one.run, source, layers, width)]
            states = torch.stack([_state(runs[place].run, state, source, layers) for place in able], 1)
            tables[key] = pairwise_metrics(layers, states, states), able
        table, able = tables[key]
        row, column = able.index(first), able.index(second)
        return table.map(lambda array: array[:, row, column])

    for i, j in combinations(range(len(runs)), 2):
        first, second = runs[i], runs[j]
        layers = tuple(layer for layer in first.run.layers if layer in second.run.layers)
        if reason := _obstacle(first, second, layers, across_models):
            left_out.append(Incomparable(first.name, second.name, reason))
            continue
        if len(layers) < max(len(first.run.layers), len(second.run.layers)):
            reason = f"only layers that both have are compared: {', '.join(map(str, layers))}"
            left_out.append(Incomparable(first.name, second.name, reason))
        shared = [s for s in sources if s in first.run.generation.rows and s in second.run.generation.rows]
        for state in STATES:
            by_source = {source: metrics_of(i, j, state, source, layers) for source in shared}
            pairs.append(RunPair(state, first, second, by_source))
    return RunComparisons(pairs, left_out)


def _fits(run: Run, source: str, layers: tuple[int, ...], width: int) -> bool:
    rows = run.generation.rows
    return source in rows and set(layers) <= set(run.layers) and rows.arrays[source].shape[-1] == width


def _obstacle(first: ComparedRun, second: ComparedRun, layers: tuple[int, ...], across_models: bool) -> str | None:
    if not layers:
        return "no layer was captured of both: capture the same layers"
    if not across_models:
        for key in _telling(first.model, second.model):
            one, other = first.model.get(key), second.model.get(key)
            if one != other:
                return f"they are of different models ({key}: {one} and {other}), whose dimensions are not the same"
    widths = [
        {s: c.run.generation.rows.arrays[s].shape[-1] for s in RESIDUAL_SOURCES if s in c.run.generation.rows}
        for c in (first, second)
    ]
    for source in widths[0].keys() & widths[1].keys():
        if widths[0][source] != widths[1][source]:
            return f"their states have different widths ({widths[0][source]} and {widths[1][source]})"
    return None


def _telling(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """By what two models are told apart: by their weights, or by all that both artifacts know."""
    keys = ("weights",) if first.get("weights") and second.get("weights") else _IDENTITY
    return [key for key in keys if first.get(key) is not None and second.get(key) is not None]


def _state(run: Run, state: State, source: str, layers: tuple[int, ...]) -> Float[Tensor, "layer width"]:
    found = run.initial(source) if state == "initial" else run.final(source)
    return found[[run.layers.index(layer) for layer in layers]]
