"""The generation of a run: the likeliest tokens of each step, entropy, and attention to the messages."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from src.report.cube import Cube
from src.report.figure_pool import FigurePool
from src.report.figures.grid import grid
from src.report.figures.layer_lines import layer_lines
from src.report.run_comparison.blocks import Block, Charts, Explorer, Help, Prose
from src.report.run_comparison.words import ATTENTION, GENERATION
from src.scenarios.comparing.attended_messages import AttendedMessages
from src.scenarios.states import Run

_MOST_STEPS = 60
_ROLES = {"system": "sys", "user": "usr", "assistant": "ast", "tool": "tool"}


class StepPool:
    """The steps of all generations of a page; each token's text lies in it once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._explorers: list[list[dict[str, Any]]] = []

    def add(self, run: Run) -> Explorer:
        """The explorer of a run."""
        self._explorers.append(
            [
                {
                    "t": self._place(step.generated_token),
                    "p": _probability(step.logprob),
                    "h": _finite(step.entropy),
                    "v": _finite(step.effective_vocab),
                    "k": [[self._place(top.token), _probability(top.logprob)] for top in step.top_k],
                }
                for step in run.generation.steps
            ]
        )
        return Explorer(len(self._explorers) - 1, len(run.generation.steps))

    def json(self) -> dict[str, Any]:
        """For the page's script."""
        return {"strings": list(self._places), "explorers": self._explorers}

    def _place(self, text: str) -> int:
        return self._places.setdefault(text, len(self._places))


def generation_blocks(run: Run, pool: FigurePool, steps: StepPool) -> list[Block]:
    """The explorer, and entropy, effective vocabulary and probability over the steps."""
    made = run.generation.steps
    values = {
        "entropy": [step.entropy for step in made],
        "effective_vocab": [step.effective_vocab for step in made],
        "probability": [np.exp(step.logprob) for step in made],
    }
    dims = {"series": ["of the run"], "step": [step.step for step in made]}
    cube = Cube(dims, {name: np.array([row], float) for name, row in values.items()})
    words = {
        "entropy": "entropy, nats",
        "effective_vocab": "effective vocabulary, tokens",
        "probability": "probability of the token that was taken",
    }
    figures = [
        pool.place(
            layer_lines, cube, f"{label[0].upper()}{label[1:]}", fields={"value": name},
            label=label.partition(" of ")[0],
            series=dims["series"], by="series", x="step", x_label="step", height=120,
        )
        for name, label in words.items()
    ]  # fmt: skip
    return [Help(GENERATION), steps.add(run), Charts(figures)]


def attention_blocks(run: Run, found: AttendedMessages | None, pool: FigurePool) -> list[Block]:
    """Where the attention of the first step goes at each layer, and that of each step, mean over layers."""
    if found is None:
        return [Prose("Attention was not captured (capture.attention_weights=true keeps it).")]
    names = [
        place if index is None else message_name(run, index)
        for place, index in zip(found.places, found.messages, strict=True)
    ]
    shown = [place for place in range(len(names)) if float(found.tokens[:, place].max()) > 0]
    even = (found.tokens / found.tokens.sum(1, keepdim=True)).numpy()
    initial = found.by_step[:, 0].numpy()
    rows = ["even", *(f"layer {layer}" for layer in found.layers)]
    prompt = [place for place in shown if float(found.tokens[0, place]) > 0]
    first = Cube(
        {"layer": rows, "place": [names[place] for place in prompt]},
        {"share": np.concatenate([even[:1], initial])[:, prompt]},
        {"place": {"tokens": found.tokens[0, prompt].int().tolist()}},
    )
    taken = _thinned(len(run.generation.steps))
    later = Cube(
        {
            "step": [f"{step} {_short(run.generation.steps[step].generated_token)}" for step in taken],
            "place": [names[place] for place in shown],
        },
        {"share": found.by_step.mean(0).numpy()[np.ix_(taken, shown)]},
    )
    size = {"step": (34, 19), "angle": -50, "label": "share of attention"}
    figures = [
        pool.place(
            grid,
            first,
            "First step, each layer",
            fields={"value": "share"},
            row="layer",
            column="place",
            about=["tokens"],
            **size,
        ),
        pool.place(
            grid, later, "Each step, mean over layers", fields={"value": "share"}, row="step", column="place", **size
        ),
    ]
    return [Help(ATTENTION), Charts(figures)]


def message_name(run: Run, place: int) -> str:
    """A message's number and role, as axes have it. place: among the run's messages."""
    message = run.messages[place]
    return f"{place}·{_ROLES.get(message.role, message.role)}{'*' if message.generated else ''}"


def _thinned(n: int) -> Sequence[int]:
    """Some steps of many, evenly, the first and the last among them."""
    return range(n) if n <= _MOST_STEPS else sorted({round(step) for step in np.linspace(0, n - 1, _MOST_STEPS)})


def _short(token: str) -> str:
    text = token.replace("\n", "↵").strip() or "␣"
    return text if len(text) <= 14 else f"{text[:13]}…"


def _probability(logprob: float) -> float:
    return float(f"{np.exp(logprob):.4g}") if np.isfinite(logprob) else 0.0


def _finite(number: float) -> float:
    return float(f"{number:.5g}") if np.isfinite(number) else 0.0
