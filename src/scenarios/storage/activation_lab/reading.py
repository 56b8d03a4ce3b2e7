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

from src.config.schema import parse_config
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

_PROMPT = re.compile(r"prompt_(\d{1,6})(?:_msg(\d{1,6})of(\d{1,6}))?")
_POSITION = "answer"


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
    """One folder with a run.json. shots: its snapshots, the one with the reply last."""

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
    scenario = first.scenario.model_copy(update={"prompt": prompts})
    conversations = [_conversation(name, runs) for name, runs in groups.items()]
    references = _read_references(above / "references", scenario)
    return LabScenario(scenario, conversations, references, _model(first), _tokenizer(first.file.tokenizer))


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
    scenario = _scenario(folder / "run.json", file.scenario)
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
    expected = len(scenario.prompt[0].messages) + 1
    if shots and ([shot.index for shot in shots] != list(range(expected)) or not shots[-1].generated):
        raise StrataError(f"{index}: its snapshots are not those of {expected - 1} messages and a reply: {REMEDY}")
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
    if all(run.shots for run in runs):
        chosen = [*longest.shots[:n_messages], *(run.shots[-1] for run in runs)]
        snapshots = [Snapshot(index, _POSITION, _last_token(shot)) for index, shot in enumerate(chosen)]
        rows = [longest.snapshot_rows.take(range(n_messages))]
        rows += [run.snapshot_rows.take([len(run.shots) - 1]) for run in runs]
    prefixes = [shot.input_token_ids for shot in longest.shots]
    ends = guessed_message_ends(prefixes, n_messages, longest.file.tokenizer.get("bos_token_id"))
    every_token = len(longest.prefill_rows) == n_tokens
    notes = {
        "imported from Activation Lab": ", ".join(f"{run.folder.name} ({_origin(run.file)})" for run in runs),
        "message ends": "guessed from the token ids",
    }
    return Conversation(
        name=name,
        messages=spoken,
        token_ids=longest.file.prompt_token_ids,
        tokens=longest.file.prompt_tokens,
        message_ends=[min(end, n_tokens - 1) for end in ends] or [n_tokens - 1] * n_messages,
        snapshots=snapshots,
        snapshot_rows=_put_together(rows),
        generations=[run.generation for run in runs],
        token_rows=longest.prefill_rows if every_token else None,
        notes=notes,
    )


def _origin(file: LabRunFile) -> str:
    known = {"torch": file.env.get("torch"), "transformers": file.env.get("transformers"), "on": file.env.get("device")}
    return ", ".join([str(file.created_at), *(f"{name} {value}" for name, value in known.items() if value is not None)])


def _last_token(shot: LabSnapshot) -> int:
    return max(0, (len(shot.input_token_ids) if shot.seq_len is None else shot.seq_len) - 1)


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
    labels = read_lab_json(folder / "index.json", LabReferences).labels
    files = [lab_tensors(folder, f"ref_{label}.npz") for label in labels]
    previews = {state.label: state.conversations[0][-1].content[:80] for state in scenario.reference_states}
    texts = []
    for label, file in zip(labels, files, strict=True):
        lengths = [shape[1] for shape in file.shapes.values() if len(shape) == 3]
        texts.append(ReferenceText(label, 0, False, previews.get(label, ""), lengths[0] if lengths else 0))
    return References(texts, {_POSITION: last_rows(files)}) if files else None


def _scenario(path: Path, values: Mapping[str, Any]) -> Scenario:
    """The scenario that run.json holds, as ours: what Activation Lab let pass and never heeded is mended."""
    values = {key: value for key, value in values.items() if key != "output"}
    generation, capture = values.get("generation"), values.get("capture")
    if isinstance(generation, dict) and not generation.get("do_sample"):
        values["generation"] = {key: generation[key] for key in ("max_new_tokens", "seed") if key in generation}
    if isinstance(capture, dict):
        values["capture"] = {key: value for key, value in capture.items() if key != "layers"}
        values["capture"] |= {"positions": [_POSITION]}
    if isinstance(states := values.get("reference_states"), list):  # of the same label the last one was kept
        values["reference_states"] = list({str(state.get("label")): state for state in states}.values())
    try:
        return parse_config(Scenario, values)
    except (StrataError, AttributeError) as error:
        raise StrataError(f"{path} holds no scenario ({str(error).splitlines()[0]}): {REMEDY}") from None


def _model(run: _LabRun) -> dict[str, Any]:
    arch, rows = run.file.model.get("arch") or {}, run.generation.rows
    n_heads = arch.get("num_attention_heads")
    width = rows.arrays["q"].shape[-1] if "q" in rows else None
    return {
        "name": str(run.file.model.get("id", "unknown")),
        "path": None,
        "revision": None,
        "dtype": run.scenario.model.dtype,
        "weights": None,
        "blocks": arch.get("layer_module_path"),
        "n_layers": arch.get("num_layers"),
        "d_model": arch.get("hidden_size"),
        "n_heads": n_heads,
        "n_kv_heads": arch.get("num_key_value_heads"),
        "d_head": width // n_heads if width and isinstance(n_heads, int) and n_heads > 0 else None,
        "d_vocab": arch.get("vocab_size"),
        "embedding_path": arch.get("embed_module_path"),
        "head_path": arch.get("lm_head_module_path"),
    }


def _tokenizer(told: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("bos_token_id", "eos_token_id", "pad_token_id", "chat_template")
    return {"d_vocab": told.get("vocab_size")} | {key: told.get(key) for key in keys}
