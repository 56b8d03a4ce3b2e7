"""States of a run as images: which there are, and the values of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.scenarios.states import ATTENTION, LOGITS, Rows, Run

View = Literal["steps", "generation", "messages"]


@dataclass(frozen=True)
class ImageKey:
    """Which image: of a run, at a layer (None: logits have none), of a step or of all rows together, of a head or not.

    frame: `step_003`, `generation` or `messages`.
    """

    run: str
    source: str
    layer: int | None
    frame: str
    head: int | None = None


@dataclass(frozen=True, eq=False)
class StateImage:
    """values: a row for each token (or step, or message), a column for each dimension (attention: each key)."""

    key: ImageKey
    values: Float[Tensor, "row column"]
    row_names: list[str]
    columns: str


@dataclass(frozen=True)
class Selection:
    """Which images of each run. layers, steps, messages: None = all.

    view: `steps`: one image per layer and step, a row for each token that the step has read; `generation`: one per
        layer, a row for each step; `messages`: one per layer, a row for each message, at a position.
    per_head: attention of each head on its own, in place of the mean over heads.
    """

    source: str
    view: View
    layers: Sequence[int] | None = None
    steps: Sequence[int] | None = None
    messages: Sequence[int] | None = None
    position: str = "end"
    per_head: bool = False


@dataclass(frozen=True, eq=False)
class _Frame:
    name: str
    rows: Rows
    chosen: Sequence[int]
    row_names: list[str]
    n_keys: int | None


def state_images(run: Run, selection: Selection) -> Iterator[StateImage]:
    """The images of a run, frame by frame, each layer by layer.

    Raises StrataError, which names what there is, if the source, a layer, a step or a message was not captured.
    """
    if selection.per_head and selection.source != ATTENTION:
        raise StrataError(f"per_head=true means nothing to source={selection.source}: it needs source=attention")
    stacked, array = None, None
    for frame in _frames(run, selection):
        if selection.source not in frame.rows:
            there = ", ".join(frame.rows.arrays) or "none"
            raise StrataError(f"{run.name}: {selection.source} was not captured; choose from its sources: {there}")
        layers = _chosen_layers(run, frame.rows, selection)
        if frame.rows is not stacked:  # once for all steps of a generation
            stacked, array = frame.rows, _array(frame.rows, selection.source)
        assert array is not None
        yield from _frame_images(run, frame, selection, layers, array)


def count_images(run: Run, selection: Selection) -> int:
    """How many images `state_images` gives; raises StrataError as it does."""
    count = 0
    for frame in _frames(run, selection):
        layers = _chosen_layers(run, frame.rows, selection)
        heads = frame.rows.arrays[ATTENTION].shape[2] if selection.per_head and ATTENTION in frame.rows else 1
        count += len(layers) * heads
    return count


def _chosen_layers(run: Run, rows: Rows, selection: Selection) -> list[int | None]:
    if selection.source == LOGITS:
        if selection.layers is not None:
            raise StrataError("layers=... means nothing to source=logits: leave it out")
        return [None]
    if selection.layers is None:
        return list(rows.layers)
    if missing := [layer for layer in selection.layers if layer not in rows.layers]:
        raise StrataError(
            f"layers: {run.name} has no states of layer {', '.join(map(str, missing))}; choose from "
            f"{', '.join(map(str, rows.layers)) or 'none'}"
        )
    return list(selection.layers)


def _frames(run: Run, selection: Selection) -> Iterator[_Frame]:
    if selection.view == "messages":
        yield _message_frame(run, selection)
        return
    steps = run.generation.steps
    chosen = list(range(len(steps))) if selection.steps is None else list(selection.steps)
    if missing := [step for step in chosen if step >= len(steps)]:
        raise StrataError(
            f"steps: {run.name} has no step {', '.join(map(str, missing))}; choose from its steps 0 to {len(steps) - 1}"
        )
    if selection.view == "generation":
        names = [f"{step} {steps[step].generated_token}" for step in chosen]
        n_keys = max(steps[step].seq_len for step in chosen)
        yield _Frame("generation", run.generation.rows, chosen, names, n_keys)
        return
    whole, conversation = run.conversation.token_rows, run.conversation
    for step in chosen:
        read = steps[step].input_token_ids
        if step == 0 and whole is not None and read == conversation.token_ids:
            names = [f"{place} {token}" for place, token in enumerate(conversation.tokens)]
            yield _Frame("step_000", whole, range(len(read)), names, len(read))
        else:
            name = str(steps[step].seq_len - 1)
            if step:
                name += f" {steps[step - 1].generated_token}"
            yield _Frame(f"step_{step:03d}", run.generation.rows, [step], [name], steps[step].seq_len)


def _message_frame(run: Run, selection: Selection) -> _Frame:
    rows = {(shot.message, shot.position): (row, shot.token) for row, shot in enumerate(run.conversation.snapshots)}
    indices = run.all_indices
    there = [message for message, index in enumerate(indices) if (index, selection.position) in rows]
    # of a message that the template can't end at there is no state; without any, the first is told to be missing
    chosen = (there or [0]) if selection.messages is None else list(selection.messages)
    if missing := [message for message in chosen if message >= len(indices)]:
        raise StrataError(
            f"messages: {run.name} has no message {', '.join(map(str, missing))}; choose from its messages 0 to "
            f"{len(indices) - 1}"
        )
    wanted = [(indices[message], selection.position) for message in chosen]
    if missing := [message for message, key in zip(chosen, wanted, strict=True) if key not in rows]:
        kept = dict.fromkeys(shot.position for shot in run.conversation.snapshots)
        raise StrataError(
            f"{run.name}: message {missing[0]} has no state at position={selection.position}; choose from positions "
            f"{', '.join(kept) or '(none: messages need preset message_ends or full)'}"
        )
    found = [rows[key] for key in wanted]
    names = [f"{message} {run.conversation.messages[indices[message]].role}" for message in chosen]
    tokens = [token for _, token in found if token is not None]
    n_keys = max(tokens) + 1 if len(tokens) == len(found) else None
    return _Frame("messages", run.conversation.snapshot_rows, [row for row, _ in found], names, n_keys)


def _array(rows: Rows, source: str) -> Float[Tensor, "layer row ..."]:
    return rows.get(source) if source == "resid_pre" else rows.arrays[source]


def _frame_images(
    run: Run,
    frame: _Frame,
    selection: Selection,
    layers: Sequence[int | None],
    array: Float[Tensor, "layer row ..."],
) -> Iterator[StateImage]:
    source, rows, chosen = selection.source, frame.rows, list(frame.chosen)
    for layer in layers:
        states = array[0 if layer is None else rows.layers.index(layer), chosen].float()
        key = ImageKey(run.name, source, layer, frame.name)
        if source != ATTENTION:
            yield StateImage(key, states, frame.row_names, "token id" if source == LOGITS else "dimension")
            continue
        states = states[..., : frame.n_keys]
        if not selection.per_head:
            yield StateImage(key, states.mean(1), frame.row_names, "key token")
            continue
        for head in range(states.shape[1]):
            key = ImageKey(run.name, source, layer, frame.name, head)
            yield StateImage(key, states[:, head], frame.row_names, "key token")
