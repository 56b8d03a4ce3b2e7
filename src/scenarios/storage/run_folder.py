"""A captured scenario on disk: one folder per conversation, few stacked arrays in each.

<artifact>/scenario.json                    the scenario as it was run
<artifact>/references/                      index.json, states.safetensors (POSITION/SOURCE [layer, text, ...])
<artifact>/<conversation>/conversation.json messages, tokens, snapshots; generations without their steps
                         /states.safetensors  snapshots/SOURCE, tokens/SOURCE, generation_0/SOURCE [layer, row, ...]
                         /steps_0.jsonl     the steps of generation 0, a line each
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from src.artifacts import Artifact, write_json
from src.artifacts.tensors import load_tensors, save_tensors
from src.config.schema import parse_config
from src.scenarios.scenario import Scenario
from src.scenarios.states import (
    Conversation,
    Generation,
    References,
    ReferenceText,
    Rows,
    Snapshot,
    SpokenMessage,
    Step,
)
from src.scenarios.storage.layout import CONVERSATION, INDEX, REFERENCES, SCENARIO, STATES, steps_name

_REMEDY = "capture the scenario again"


@dataclass(frozen=True, eq=False)
class CapturedScenario:
    """All of one artifact. model: what run.json says of the model (name, d_model, n_layers, n_heads, ...)."""

    artifact: Artifact
    scenario: Scenario
    conversations: list[Conversation]
    references: References | None
    model: Mapping[str, Any]


def write_scenario(folder: Path, scenario: Scenario) -> None:
    """What is to be run."""
    write_json(folder / SCENARIO, scenario.model_dump(mode="json"))


def write_conversation(folder: Path, conversation: Conversation) -> None:
    """Write one conversation into an existing, empty folder."""
    arrays = _named("snapshots", conversation.snapshot_rows)
    if conversation.token_rows is not None:
        arrays |= _named("tokens", conversation.token_rows)
    for place, generation in enumerate(conversation.generations):
        arrays |= _named(f"generation_{place}", generation.rows)
        lines = [json.dumps(asdict(step), ensure_ascii=False) + "\n" for step in generation.steps]
        (folder / steps_name(place)).write_text("".join(lines), encoding="utf-8")
    save_tensors(folder / STATES, arrays)
    values = {
        "name": conversation.name,
        "layers": list(conversation.snapshot_rows.layers),
        "messages": [asdict(message) for message in conversation.messages],
        "token_ids": conversation.token_ids,
        "tokens": conversation.tokens,
        "message_ends": conversation.message_ends,
        "snapshots": [asdict(snapshot) for snapshot in conversation.snapshots],
        "generations": [
            {"after": made.after, "token_ids": made.token_ids, "text": made.text, "ended": made.ended}
            for made in conversation.generations
        ],
        "control": conversation.control,
        "order": conversation.order,
        "notes": conversation.notes,
    }
    write_json(folder / "conversation.json", values)


def read_conversation(folder: Path) -> Conversation:
    """Read one conversation. Raises StrataError if a file is missing or damaged."""
    values = json.loads((folder / CONVERSATION).read_text(encoding="utf-8"))
    layers, arrays = tuple(values.pop("layers")), load_tensors(folder / STATES, _REMEDY)
    generations = []
    for place, made in enumerate(values.pop("generations")):
        # a token may hold U+2028, which splitlines would take for the end of a line
        with (folder / steps_name(place)).open(encoding="utf-8") as lines:
            steps = [_STEP.validate_json(line) for line in lines]
        generations.append(Generation(**made, steps=steps, rows=_rows(f"generation_{place}", layers, arrays)))
    tokens = _rows("tokens", layers, arrays)
    return Conversation(
        **values
        | {
            "messages": [SpokenMessage(**message) for message in values["messages"]],
            "snapshots": [Snapshot(**snapshot) for snapshot in values["snapshots"]],
        },
        snapshot_rows=_rows("snapshots", layers, arrays),
        generations=generations,
        token_rows=tokens if tokens.arrays else None,
    )


def write_references(folder: Path, references: References) -> None:
    """Write the states of reference texts into an existing, empty folder."""
    arrays = {
        name: array for position, rows in references.rows.items() for name, array in _named(position, rows).items()
    }
    save_tensors(folder / STATES, arrays)
    layers = next((rows.layers for rows in references.rows.values()), ())
    values = {"layers": list(layers), "positions": list(references.rows)}
    write_json(folder / "index.json", values | {"texts": [asdict(text) for text in references.texts]})


def read_references(folder: Path) -> References:
    """Read the states of reference texts. Raises StrataError if a file is missing or damaged."""
    values = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    arrays = load_tensors(folder / STATES, _REMEDY)
    rows = {position: _rows(position, tuple(values["layers"]), arrays) for position in values["positions"]}
    return References([ReferenceText(**text) for text in values["texts"]], rows)


def read_captured(artifact: Artifact) -> CapturedScenario:
    """Read all of an artifact."""
    scenario = parse_config(Scenario, json.loads((artifact.path / SCENARIO).read_text(encoding="utf-8")))
    names = artifact.meta.summary["conversations"]
    has_references = (artifact.path / REFERENCES).is_dir()
    return CapturedScenario(
        artifact,
        scenario,
        [read_conversation(artifact.path / name) for name in names],
        read_references(artifact.path / REFERENCES) if has_references else None,
        artifact.meta.summary["model"],
    )


def _named(group: str, rows: Rows) -> dict[str, Tensor]:
    return {f"{group}/{source}": array for source, array in rows.arrays.items()}


def _rows(group: str, layers: tuple[int, ...], arrays: Mapping[str, Tensor]) -> Rows:
    prefix = f"{group}/"
    return Rows(layers, {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)})


_STEP = TypeAdapter(Step)
