"""Read a run of Activation Lab, in either of its layouts, as a captured scenario.

HEAD: <scenario>_<time>/{scenario.json, references/, prompt_0/ or prompt_0_msg1of3/, ...}, every token's tensors.
OLD: <scenario>_<time>/{run.json, references/, ...}: one run, snapshots and references of the last token alone.
Its snapshots are states where the model is about to answer (position `answer`).
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.errors import StrataError
from src.scenarios.scenario import Scenario
from src.scenarios.states import (
    LOGITS,
    Conversation,
    Generation,
    References,
    ReferenceText,
    Rows,
    Snapshot,
    SpokenMessage,
    Step,
)
from src.scenarios.storage.activation_lab.boundaries import guessed_message_ends
from src.scenarios.storage.activation_lab.files import (
    LabReferences,
    LabRunFile,
    LabSnapshot,
    LabSnapshots,
    LabStep,
    LabSteps,
    lab_tensors,
    read_lab_json,
)
from src.scenarios.storage.activation_lab.npz import REMEDY
from src.scenarios.storage.activation_lab.states import last_rows, token_rows
from src.scenarios.storage.activation_lab.told import grouped_examples, lab_model, lab_scenario, lab_tokenizer

_PROMPT = re.compile(r"prompt_(\d{1,6})(?:_msg(\d{1,6})of(\d{1,6}))?")


@dataclass(frozen=True, eq=False)
class LabScenario:
    """What was read; model and tokenizer as description.py has them, as far as Activation Lab told."""

    scenario: Scenario
    conversations: list[Conversation]
    references: References | None
    model: dict[str, Any]
    tokenizer: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _LabRun:
    """One folder with a run.json. shots: what each of snapshot_rows is; `index` counts the messages."""

    folder: Path
    file: LabRunFile
    scenario: Scenario
    generation: Generation
    shots: list[LabSnapshot]
    snapshot_rows: Rows
    prefill_rows: Rows


def read_lab_scenario(folder: Path) -> LabScenario:
    """Read the folder of a scenario (HEAD), of one of its prompts, or of a run (OLD).

    Raises StrataError if it is none, or a file is missing, damaged or hostile.
    """
    if (folder / "run.json").is_file():
        found = {"prompt_0": [folder]}
        above = folder if (folder / "references").is_dir() else folder.parent
    else:
        found, above = _prompt_folders(folder), folder
    groups = {name: [_read_run(run) for run in runs] for name, runs in found.items()}
    first = next(iter(groups.values()))[0]
    prompts = [runs[-1].scenario.prompt[0].model_copy(update={"name": name}) for name, runs in groups.items()]
    conversations = [_conversation(name, runs) for name, runs in groups.items()]
    full = all(conversation.token_rows is not None for conversation in conversations)
    kept = "full" if full else "message_ends" if any(made.snapshots for made in conversations) else "last_token"
    capture = first.scenario.capture.model_copy(update={"preset": kept})
    scenario = first.scenario.model_copy(update={"prompt": prompts, "capture": capture})
    references = _read_references(above / "references", scenario)
    if references is not None and len(references.texts) == len(scenario.reference_states):
        scenario = grouped_examples(scenario, references.texts)
    return LabScenario(
        scenario,
        conversations,
        references,
        lab_model(first.file, first.scenario, first.generation.rows),
        lab_tokenizer(first.file.tokenizer),
    )


def _prompt_folders(folder: Path) -> dict[str, list[Path]]:
    """The runs of each conversation: those after each of its messages, where all are there, belong to one."""
    matches = {path: _PROMPT.fullmatch(path.name) for path in folder.glob("prompt_*") if (path / "run.json").is_file()}
    found = {path: match for path, match in matches.items() if match}
    if not found:
        runs = sorted(path.parent.name for path in folder.glob("*/run.json"))
        hint = f"it holds runs, of which you import one at a time: {', '.join(runs[:5])}" if runs else "check the path"
        raise StrataError(f"{folder} is no run of Activation Lab (it has no run.json and no prompt_0/run.json); {hint}")
    prompts: dict[int, dict[int, Path]] = defaultdict(dict)
    for path, match in found.items():
        prompts[int(match[1])][int(match[2] or 0)] = path
    folders = {}
    for _, by_message in sorted(prompts.items()):
        ordered = [by_message[after] for after in sorted(by_message)]
        n = _PROMPT.fullmatch(ordered[-1].name)
        whole = sorted(by_message) == list(range(1, len(ordered) + 1)) and n is not None and n[3] == str(len(ordered))
        folders |= {ordered[0].name.partition("_msg")[0]: ordered} if whole else {path.name: [path] for path in ordered}
    return folders


def _read_run(folder: Path) -> _LabRun:
    file = read_lab_json(folder / "run.json", LabRunFile)
    if len(file.prompt_tokens) != len(file.prompt_token_ids):
        raise StrataError(f"{folder / 'run.json'}: prompt_tokens and prompt_token_ids differ in number: {REMEDY}")
    scenario = lab_scenario(folder / "run.json", file.scenario)
    steps = read_lab_json(folder / "steps.json", LabSteps).steps
    tensors = [lab_tensors(folder / "tensors", step.tensors_file) for step in steps]
    if not steps or [step.step for step in steps] != list(range(len(steps))):
        raise StrataError(f"{folder / 'steps.json'}: steps are missing: {REMEDY}")
    rows = last_rows(tensors)
    made = [_step(step, len(file.prompt_token_ids), rows) for step in steps]
    ended = made[-1].generated_token_id == file.tokenizer.get("eos_token_id")
    text = "".join(step.generated_token for step in (made[:-1] if ended else made))
    generation = Generation(
        len(scenario.prompt[0].messages), [step.generated_token_id for step in made], text, ended, made, rows
    )
    shots = []
    if (index := folder / "conversation_snapshots" / "index.json").is_file():
        shots = read_lab_json(index, LabSnapshots).snapshots
    n_messages, indices = generation.after, [shot.index for shot in shots]
    if (
        sorted(set(indices)) != indices
        or len({shot.position for shot in shots}) > 1
        or any(shot.generated != (shot.index == n_messages) or not 0 <= shot.index <= n_messages for shot in shots)
    ):
        raise StrataError(f"{index}: its snapshots are not those of {n_messages} messages and a reply: {REMEDY}")
    files = [lab_tensors(index.parent, shot.tensors_file) for shot in shots]
    return _LabRun(folder, file, scenario, generation, shots, last_rows(files), token_rows(tensors[0]))


def _step(step: LabStep, n_prompt: int, rows: Rows) -> Step:
    """A step; its seq_len is counted anew, since Activation Lab's is one too high while it decodes."""
    stats, top = step.logit_stats or {}, {found.id: found.logprob for found in step.top_k or []}
    entropy, effective, top1 = (stats.get(key) for key in ("entropy", "effective_vocab", "top1_prob"))
    return Step(
        step=step.step,
        kind=step.kind,
        input_token_ids=step.input_token_ids,
        generated_token_id=step.generated_token_id,
        generated_token=step.generated_token,
        logprob=_logprob(step, top, rows),
        seq_len=n_prompt + step.step,
        entropy=math.nan if entropy is None else entropy,
        effective_vocab=math.nan if effective is None else effective,
        top1_prob=math.nan if top1 is None else top1,
        top_k=step.top_k or [],
    )


def _logprob(step: LabStep, top: Mapping[int, float], rows: Rows) -> float:
    """Of the chosen token: as it was noted, else from the logits, which were rounded when they were stored."""
    chosen = step.generated_token_id
    if chosen in top:
        return top[chosen]
    if chosen == step.logit_argmax_id and step.logit_argmax_logprob is not None:
        return step.logit_argmax_logprob
    if LOGITS in rows and 0 <= chosen < rows.arrays[LOGITS].shape[-1]:
        return float(rows.arrays[LOGITS][0, step.step].float().log_softmax(-1)[chosen])
    return math.nan


def _conversation(name: str, runs: list[_LabRun]) -> Conversation:
    """The conversation of runs after some or all of its messages, the longest last."""
    longest = runs[-1]
    messages = longest.scenario.prompt[0].messages
    spoken = [SpokenMessage(message.role, message.content, message.label) for message in messages]
    spoken += [SpokenMessage("assistant", run.generation.text, generated=True) for run in runs]
    n_tokens, n_messages = len(longest.file.prompt_token_ids), len(messages)
    snapshots, rows = [], []
    for place, run in enumerate(runs):
        # of the messages the longest run has all; of the others the reply is new
        chosen = [row for row, shot in enumerate(run.shots) if shot.generated or run is longest]
        for row in chosen:
            shot = run.shots[row]
            snapshots.append(Snapshot(n_messages + place if shot.generated else shot.index, shot.position, shot.token))
        rows += [run.snapshot_rows.take(chosen)] if chosen else []
    order = sorted(range(len(snapshots)), key=lambda row: snapshots[row].message)
    ends = _message_ends(longest, n_messages)
    every_token = len(longest.prefill_rows) == n_tokens
    notes: dict[str, object] = {
        "imported from Activation Lab": ", ".join(f"{run.folder.name} ({_origin(run.file)})" for run in runs),
        "message ends": "guessed from the token ids",
    }
    return Conversation(
        name=name,
        messages=spoken,
        token_ids=longest.file.prompt_token_ids,
        tokens=longest.file.prompt_tokens,
        message_ends=[min(end, n_tokens - 1) for end in ends],
        snapshots=[snapshots[row] for row in order],
        snapshot_rows=_put_together(rows).take(order),
        generations=[run.generation for run in runs],
        token_rows=longest.prefill_rows if every_token else None,
        notes=notes,
    )


def _origin(file: LabRunFile) -> str:
    known = {"torch": file.env.get("torch"), "transformers": file.env.get("transformers"), "on": file.env.get("device")}
    return ", ".join([str(file.created_at), *(f"{name} {value}" for name, value in known.items() if value is not None)])


def _message_ends(run: _LabRun, n_messages: int) -> list[int]:
    """As the snapshots tell them; of a message that has none, the end of the one before."""
    told = [shot for shot in run.shots if not shot.generated]
    if any(shot.position == "answer" for shot in told):
        prefixes = [shot.input_token_ids for shot in run.shots]
        found = guessed_message_ends(prefixes, len(told), run.file.tokenizer.get("bos_token_id"))
    else:
        found = [shot.token for shot in told]
    known = dict(zip((shot.index for shot in told), found, strict=True))
    ends: list[int] = []
    for message in range(n_messages):
        ends.append(known.get(message, ends[-1] if ends else 0))
    return ends


def _put_together(parts: list[Rows]) -> Rows:
    """Rows of several files as one; attention gets zeros for later keys."""
    if not parts:
        return Rows((), {})
    arrays = {}
    for source in parts[0].arrays:
        found = [part.arrays[source] for part in parts if source in part.arrays]
        if len(found) == len(parts):
            arrays[source] = torch.cat([_widened(array, max(a.shape[-1] for a in found)) for array in found], 1)
    return Rows(parts[0].layers, arrays)


def _widened(array: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(array, (0, width - array.shape[-1]))


def _read_references(folder: Path, scenario: Scenario) -> References | None:
    if not (folder / "index.json").is_file():
        return None
    index = read_lab_json(folder / "index.json", LabReferences)
    labels = index.labels
    files = [lab_tensors(folder, f"ref_{label}.npz") for label in labels]
    previews = {state.label: state.conversations[0][-1].content[:80] for state in scenario.reference_states}
    if index.texts is not None and len(index.texts) == len(labels):
        return References(index.texts, {index.position: last_rows(files)}) if files else None
    texts = []
    for label, file in zip(labels, files, strict=True):
        lengths = [shape[1] for shape in file.shapes.values() if len(shape) == 3]
        texts.append(ReferenceText(label, 0, False, previews.get(label, ""), lengths[0] if lengths else 0))
    return References(texts, {index.position: last_rows(files)}) if files else None
