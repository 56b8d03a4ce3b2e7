"""A captured scenario on disk: a folder for each item (the references, each conversation), few stacked arrays.

<artifact>/scenario.json                    the scenario as it was run
<artifact>/run.json                         the model and the tokenizer
<artifact>/status.json                      which items are pending, running, done, failed
<artifact>/references/index.json            which text each row is of
                     /states.safetensors    POSITION/SOURCE [layer, text, ...]
                     /item.json             what it was made with; checksums of the files beside it; written last
<artifact>/<conversation>/conversation.json messages, tokens, snapshots; generations without their steps
                         /states.safetensors  snapshots/SOURCE, tokens/SOURCE, generation_0/SOURCE [layer, row, ...]
                         /steps_0.jsonl     the steps of generation 0, a line each, added as they are made
                         /item.json
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from src.artifacts import Artifact, write_json
from src.config.schema import parse_config
from src.errors import StrataError
from src.scenarios.scenario import Label, Scenario
from src.scenarios.states import (
    Conversation,
    Generation,
    References,
    ReferenceText,
    Rows,
    Snapshot,
    SpokenMessage,
)
from src.scenarios.storage.arrays import REMEDY, load_rows, save_rows
from src.scenarios.storage.layout import CONVERSATION, INDEX, REFERENCES, RUN, SCENARIO, STATES
from src.scenarios.storage.steps import read_steps, write_steps

_ValueT = TypeVar("_ValueT")


@dataclass(frozen=True, eq=False)
class CapturedScenario:
    """All of one artifact. model, tokenizer: see description.py (name, d_model, n_layers, n_heads, ...)."""

    artifact: Artifact
    scenario: Scenario
    conversations: list[Conversation]
    references: References | None
    model: Mapping[str, Any]


@dataclass(frozen=True)
class _GenerationFile:
    after: int
    token_ids: list[int]
    text: str
    ended: bool


@dataclass(frozen=True)
class _ConversationFile:
    name: str
    layers: list[int]
    messages: list[SpokenMessage]
    token_ids: list[int]
    tokens: list[str]
    message_ends: list[int]
    snapshots: list[Snapshot]
    generations: list[_GenerationFile]
    control: bool
    order: list[int] | None
    notes: dict[str, Any]


@dataclass(frozen=True)
class _ReferencesFile:
    layers: list[int]
    positions: list[str]
    texts: list[ReferenceText]


_CONVERSATION, _REFERENCES = TypeAdapter(_ConversationFile), TypeAdapter(_ReferencesFile)
_RUN = TypeAdapter(dict[str, dict[str, Any]])
_PLAIN, _NAMES = TypeAdapter(dict[str, Any]), TypeAdapter(list[Label])


def write_scenario(folder: Path, scenario: Scenario) -> None:
    """What is to be run."""
    write_json(folder / SCENARIO, scenario.model_dump(mode="json"))


def read_scenario(folder: Path) -> Scenario:
    """What was run. Raises StrataError if scenario.json is missing, damaged or foreign."""
    return parse_config(Scenario, _read(folder / SCENARIO, _PLAIN))


def write_run(folder: Path, model: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    """What runs it, as description.py tells it."""
    write_json(folder / RUN, {"model": model, "tokenizer": tokenizer})


def read_run(folder: Path) -> dict[str, dict[str, Any]]:
    """What ran it: `model` and `tokenizer`. Raises StrataError if run.json is missing, damaged or foreign."""
    values = _read(folder / RUN, _RUN)
    if missing := {"model", "tokenizer"} - set(values):
        raise StrataError(f"{folder / RUN} is damaged or foreign ({', '.join(missing)} is missing): {REMEDY}")
    return values


def write_conversation(folder: Path, conversation: Conversation) -> None:
    """Write one conversation into an existing folder, which may hold nothing but its steps (see add_step)."""
    generations = conversation.generations
    groups = {"snapshots": conversation.snapshot_rows}
    if conversation.token_rows is not None:
        groups["tokens"] = conversation.token_rows
    for place, generation in enumerate(generations):
        groups[f"generation_{place}"] = generation.rows
        write_steps(folder, place, generation.steps)
    made = [_GenerationFile(made.after, made.token_ids, made.text, made.ended) for made in generations]
    # not dataclasses.asdict, which copies all of it deeply
    file = {
        "name": conversation.name,
        "layers": list(_common_layers(groups)),
        "messages": [vars(message) for message in conversation.messages],
        "token_ids": conversation.token_ids,
        "tokens": conversation.tokens,
        "message_ends": conversation.message_ends,
        "snapshots": [vars(snapshot) for snapshot in conversation.snapshots],
        "generations": [vars(generation) for generation in made],
        "control": conversation.control,
        "order": conversation.order,
        "notes": conversation.notes,
    }
    save_rows(folder / STATES, groups)
    write_json(folder / CONVERSATION, file)


def read_conversation(folder: Path) -> Conversation:
    """Read one conversation; states are read from the disk when they are looked at.

    Raises StrataError if a file is missing, damaged or foreign, or the files contradict each other.
    """
    file = _read(folder / CONVERSATION, _CONVERSATION)
    if problem := _contradiction(file):
        raise StrataError(f"{folder / CONVERSATION} is damaged ({problem}): {REMEDY}")
    steps = [read_steps(folder, place) for place in range(len(file.generations))]
    n_rows = {"snapshots": len(file.snapshots), "tokens": len(file.token_ids)}
    n_rows |= {f"generation_{place}": len(made) for place, made in enumerate(steps)}
    rows = load_rows(folder / STATES, file.layers, n_rows)
    return Conversation(
        name=file.name,
        messages=file.messages,
        token_ids=file.token_ids,
        tokens=file.tokens,
        message_ends=file.message_ends,
        snapshots=file.snapshots,
        snapshot_rows=rows["snapshots"],
        generations=[
            Generation(made.after, made.token_ids, made.text, made.ended, steps[place], rows[f"generation_{place}"])
            for place, made in enumerate(file.generations)
        ],
        token_rows=rows["tokens"] if rows["tokens"].arrays else None,
        control=file.control,
        order=file.order,
        notes=file.notes,
    )


def write_references(folder: Path, references: References) -> None:
    """Write the states of reference texts into an existing, empty folder."""
    file = _ReferencesFile(list(_common_layers(references.rows)), list(references.rows), references.texts)
    save_rows(folder / STATES, references.rows)
    write_json(folder / INDEX, asdict(file))


def read_references(folder: Path) -> References:
    """Read the states of reference texts. Raises StrataError as read_conversation does."""
    file = _read(folder / INDEX, _REFERENCES)
    if problem := _bad_layers(file.layers):
        raise StrataError(f"{folder / INDEX} is damaged ({problem}): {REMEDY}")
    n_rows = {position: len(file.texts) for position in file.positions}
    return References(file.texts, load_rows(folder / STATES, file.layers, n_rows))


def read_captured(artifact: Artifact) -> CapturedScenario:
    """Read an artifact; states are read from the disk when they are looked at.

    Raises StrataError if something is missing, damaged or foreign.
    """
    scenario = read_scenario(artifact.path)
    summary = artifact.meta.summary
    try:
        names, model = _NAMES.validate_python(summary["conversations"]), dict(summary["model"])
    except (KeyError, TypeError, ValueError):
        raise StrataError(f"{artifact.path} does not say which conversations it holds: {REMEDY}") from None
    conversations = []
    for name in names:
        conversations.append(read_conversation(artifact.path / name))
        if conversations[-1].name != name:
            raise StrataError(f"{artifact.path / name} holds another conversation than its own: {REMEDY}")
    folder = artifact.path / REFERENCES
    references = read_references(folder) if scenario.reference_states or folder.is_dir() else None
    return CapturedScenario(artifact, scenario, conversations, references, model)


def _common_layers(groups: Mapping[str, Rows]) -> tuple[int, ...]:
    found = {rows.layers for rows in groups.values() if rows.arrays}
    if len(found) > 1:
        raise ValueError(f"rows of one item are of different layers: {sorted(found)}")
    return found.pop() if found else ()


def _read(path: Path, kind: "TypeAdapter[_ValueT]") -> _ValueT:
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise StrataError(f"{path} can't be read ({error.strerror}): {REMEDY}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StrataError(
            f"{path} is damaged or foreign ({f'{place}: ' if place else ''}{first['msg']}): {REMEDY}"
        ) from None


def _bad_layers(layers: list[int]) -> str | None:
    return None if layers == sorted(set(layers)) and all(layer >= 0 for layer in layers) else f"layers {layers}"


def _contradiction(file: _ConversationFile) -> str | None:
    """What can't be, if the file is what write_conversation wrote."""
    n_read, n_tokens = len(file.messages) - len(file.generations), len(file.token_ids)
    checks = {
        "tokens": len(file.tokens) == n_tokens,
        "message_ends": len(file.message_ends) == n_read and all(-1 <= end < n_tokens for end in file.message_ends),
        "generations": all(0 < made.after <= n_read for made in file.generations),
        "snapshots": all(0 <= shot.message < len(file.messages) for shot in file.snapshots),
    }
    wrong = next((name for name, sound in checks.items() if not sound), None)
    return f"{wrong} do not fit its messages and tokens" if wrong else _bad_layers(file.layers)
