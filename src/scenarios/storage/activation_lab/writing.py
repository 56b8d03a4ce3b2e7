"""Write a captured scenario as Activation Lab's files: the layout with every token (HEAD), or of last tokens (OLD).

What was not captured is left out: tokens within a message, values of snapshots, its mlp_act (the activation function of
the gate alone). bfloat16 becomes float32.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.artifacts import write_json
from src.errors import StrataError
from src.scenarios.states import ATTENTION, LOGITS, Conversation, References, Rows, Run, SpokenMessage, Step
from src.scenarios.storage.activation_lab.npz import LAYER_KEYS, LOGITS_KEY, layer_key, save_npz
from src.scenarios.storage.run_folder import CapturedScenario, read_run

_POSITIONS = ("answer", "end", "mean")
# what the OLD layout has of snapshots and references
_OLD_KEYS = ("hidden_in", "hidden_out", "attn_out", "mlp_down_out", "q", "k", "v")


def write_lab_scenario(captured: CapturedScenario, target: Path) -> list[Path]:
    """Write the runs of a scenario below a folder; returns the folders that were made.

    With every token (preset full) it is one folder with a folder for each run in it, else a folder for each run. Raises
    StrataError if one is there already.
    """
    stamp = re.sub(r"\+00:00$", "Z", captured.artifact.meta.started_at).replace(":", "-")
    whole = all(conversation.token_rows is not None for conversation in captured.conversations)
    top = target / f"{captured.scenario.name}_{stamp}"
    places: dict[Path, Run] = {}
    # conversations in other orders have no replies
    for number, conversation in enumerate(made for made in captured.conversations if made.generations):
        n_messages = len(conversation.messages) - len(conversation.generations)
        for run in conversation.runs():
            after = f"_msg{run.generation.after}of{n_messages}" if len(conversation.generations) > 1 else ""
            old = target / f"{captured.scenario.name}_{run.name}_{stamp}"
            places[top / f"prompt_{number}{after}" if whole else old] = run
    if not places:
        raise StrataError(f"{captured.artifact.path} has no generated text, and Activation Lab has no runs without it")
    tops = [top] if whole else list(places)
    if there := next((path for path in tops if path.exists()), None):
        raise StrataError(f"{there} is there already: export into another folder, or remove it")
    for place, run in places.items():
        _write_run(captured, run, place, whole)
    for folder in tops:
        if captured.references is not None:
            _write_references(captured.references, folder / "references", whole)
    if whole:
        told = [conversation for conversation in captured.conversations if conversation.generations]
        write_json(top / "scenario.json", _scenario(captured, told))
    return tops


def _write_run(captured: CapturedScenario, run: Run, place: Path, whole: bool) -> None:
    place.mkdir(parents=True)
    described, meta = read_run(captured.artifact.path), captured.artifact.meta
    words = {step.generated_token_id: step.generated_token for step in run.generation.steps}
    words |= zip(run.conversation.token_ids, run.conversation.tokens, strict=True)
    prompt_ids = run.generation.steps[0].input_token_ids
    write_json(
        place / "run.json",
        {
            "scenario": _scenario(captured, [run]),
            "model": {"id": captured.model.get("name"), "arch": _arch(captured.model)},
            "tokenizer": {"id": captured.model.get("name"), "vocab_size": described["tokenizer"].get("d_vocab")}
            | {key: value for key, value in described["tokenizer"].items() if key != "d_vocab"},
            "prompt_token_ids": prompt_ids,
            "prompt_tokens": [words.get(token, "") for token in prompt_ids],
            "env": meta.versions | {"device": meta.device},
            "created_at": meta.started_at,
        },
    )
    steps = []
    for step in run.generation.steps:
        tensors = _members(run.generation.rows, step.step, step.seq_len, _batched)
        tokens = run.conversation.token_rows
        if step.step == 0 and whole and tokens is not None and prompt_ids == run.conversation.token_ids:
            tensors = _members(tokens, slice(None), len(prompt_ids), _batched)
        name = f"step_{step.step:03d}.npz"
        save_npz(place / "tensors" / name, tensors)
        steps.append(_step(step, words) | {"tensors_file": f"tensors/{name}", "tensor_index": _index(tensors)})
    write_json(place / "steps.json", {"steps": steps})
    _write_snapshots(run, place / "conversation_snapshots", words, whole)


def _write_snapshots(run: Run, place: Path, words: Mapping[int, str], whole: bool) -> None:
    conversation = run.conversation
    rows = {(shot.message, shot.position): (row, shot) for row, shot in enumerate(conversation.snapshots)}
    counts = {kind: sum((number, kind) in rows for number in run.all_indices) for kind in _POSITIONS}
    position = max(_POSITIONS, key=counts.__getitem__)  # of as many the first
    # of a message that the whole conversation writes otherwise than its beginning, the ids are not known
    last = conversation.message_ends[-1]
    header = conversation.token_ids[last + 1 :] if last >= 0 else []
    shots = []
    for index, number in enumerate(run.all_indices):
        message = conversation.messages[number]
        if (number, position) not in rows:
            continue
        row, shot = rows[number, position]
        name = f"snapshot_{index:02d}_{message.role}.npz"
        n_keys = None if shot.token is None else shot.token + 1
        tensors = _members(conversation.snapshot_rows, row, n_keys, _batched if whole else None)
        save_npz(place / name, tensors)
        if message.generated:  # what the template writes after a reply is not known
            ids = run.generation.steps[0].input_token_ids + run.generation.token_ids
        else:
            ids = conversation.token_ids[: conversation.message_ends[number] + 1]
        ids = ids + header if position == "answer" else ids
        shots.append(
            {
                "index": index,
                "role": message.role,
                "content_preview": message.content[:80],
                "position": position,
                "input_token_ids": ids,
                "input_tokens": [words.get(token, "") for token in ids],
                "seq_len": n_keys,
                "tensors_file": f"conversation_snapshots/{name}",
                "tensor_index": _index(tensors),
                "generated": message.generated,
            }
        )
    if shots:
        write_json(place / "index.json", {"snapshots": shots})


def _write_references(references: References, place: Path, whole: bool) -> None:
    position = next(kind for kind in (*_POSITIONS, *references.rows) if kind in references.rows)
    labels = _labels(references)
    for row, label in enumerate(labels):
        tensors = _members(references.rows[position], row, None, _batched if whole else None)
        save_npz(place / f"ref_{label}.npz", tensors)
    write_json(
        place / "index.json", {"labels": labels, "position": position, "texts": list(map(asdict, references.texts))}
    )


def _labels(references: References) -> list[str]:
    """One for each text: Activation Lab knows one text for each label, so the others get a number."""
    taken, found = {text.label for text in references.texts}, []
    for text in references.texts:
        numbered = (f"{text.label}_{number}" for number in count(text.example + 1))
        found.append(text.label if text.example == 0 else next(name for name in numbered if name not in taken))
        taken.add(found[-1])
    return found


def _batched(array: Tensor) -> Tensor:
    """[token, width] (attention: [token, head, key]) as a forward pass has it."""
    return (array.transpose(0, 1) if array.ndim == 3 else array)[None]


def _members(
    rows: Rows, which: int | slice, n_keys: int | None, batched: Callable[[Tensor], Tensor] | None
) -> dict[str, np.ndarray]:
    """The members of an npz file for some rows; batched=None: vectors of one row, of the kinds that OLD has."""
    chosen = slice(which, which + 1) if isinstance(which, int) else which
    members = {}
    for name, source in LAYER_KEYS.items():
        if source not in rows.arrays or (batched is None and name not in _OLD_KEYS):
            continue
        # in float32 where a layer's input is told by the output of the one before
        array = rows.get(source) if source == "resid_pre" else rows.arrays[source]
        for layer, states in zip(rows.layers, array[:, chosen], strict=True):
            states = states[..., :n_keys] if source == ATTENTION else states
            members[layer_key(layer, name)] = _numpy(states[0] if batched is None else batched(states))
    if batched is not None:
        if LOGITS in rows.arrays:
            members[LOGITS_KEY] = _numpy(batched(rows.arrays[LOGITS][0, chosen]))
        if rows.layers[:1] == (0,) and "resid_pre" in rows.arrays:
            members["embeddings"] = members[layer_key(0, "hidden_in")]
    return members


def _numpy(array: Tensor) -> np.ndarray:
    return (array.float() if array.dtype == torch.bfloat16 else array).contiguous().numpy()


def _index(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {key: {"shape": list(array.shape), "dtype": str(array.dtype)} for key, array in tensors.items()}


def _step(step: Step, words: Mapping[int, str]) -> dict[str, Any]:
    top_k = [asdict(top) for top in step.top_k if math.isfinite(top.logprob)]
    best = step.top_k[0] if top_k else None
    return {
        "step": step.step,
        "kind": step.kind,
        "input_token_ids": step.input_token_ids,
        "input_tokens": [words.get(token, "") for token in step.input_token_ids],
        "generated_token_id": step.generated_token_id,
        "generated_token": step.generated_token,
        "logit_argmax_id": best.id if best else None,
        "logit_argmax_logprob": best.logprob if best else None,
        "top_k": top_k,
        "seq_len": step.seq_len,
        "logit_stats": {key: _finite(getattr(step, key)) for key in ("entropy", "effective_vocab", "top1_prob")},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _arch(model: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "num_layers": "n_layers",
        "hidden_size": "d_model",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "vocab_size": "d_vocab",
        "layer_module_path": "blocks",
        "embed_module_path": "embedding_path",
        "lm_head_module_path": "head_path",
    }
    return {theirs: model.get(ours) for theirs, ours in names.items()}


def _prompt_of(told: Conversation | Run) -> list[SpokenMessage]:
    if isinstance(told, Run):
        return told.conversation.messages[: told.generation.after]
    return [message for message in told.messages if not message.generated]


def _scenario(captured: CapturedScenario, told: Sequence[Conversation | Run]) -> dict[str, Any]:
    """The scenario as Activation Lab writes it, with the messages that were read in the prompts."""
    values = captured.scenario.model_dump(mode="json")
    values["prompt"] = [
        {
            "messages": [{"role": said.role, "content": said.content} for said in _prompt_of(one)],
            "run_at_each_message": isinstance(one, Conversation) and len(one.generations) > 1,
        }
        for one in told
    ]
    states = [(state, example) for state in captured.scenario.reference_states for example in state.conversations]
    labels = [] if captured.references is None else _labels(captured.references)
    values["reference_states"] = [
        {"label": label, "messages": [{"role": said.role, "content": said.content} for said in messages]}
        for label, (_, messages) in zip(labels, states, strict=False)
    ]
    values["output"] = {"dir": "./runs", "format": "json+npz"}
    values["capture"] = {key: value for key, value in values["capture"].items() if key not in ("preset", "positions")}
    return values
