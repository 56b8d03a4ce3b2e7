"""What Activation Lab's run.json tells of scenario, model and tokenizer, in our words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.config.schema import parse_config
from src.errors import StrataError
from src.scenarios.scenario import Scenario
from src.scenarios.states import ReferenceText, Rows
from src.scenarios.storage.activation_lab.files import LabRunFile
from src.scenarios.storage.activation_lab.npz import REMEDY

# a file that claims more is no model's
_MOST_LAYERS = 10_000


def lab_scenario(path: Path, values: Mapping[str, Any]) -> Scenario:
    """The scenario that run.json holds, as ours: what Activation Lab let pass and never heeded is mended."""
    values = {key: value for key, value in values.items() if key != "output"}
    generation, capture = values.get("generation"), values.get("capture")
    if isinstance(generation, dict) and not generation.get("do_sample"):
        values["generation"] = {key: generation[key] for key in ("max_new_tokens", "seed") if key in generation}
    if isinstance(capture, dict):
        values["capture"] = {key: value for key, value in capture.items() if key != "layers"}
        values["capture"] |= {"positions": ["answer"]}
    if isinstance(states := values.get("reference_states"), list):  # of the same label the last one was kept
        values["reference_states"] = list({str(state.get("label")): state for state in states}.values())
    try:
        return parse_config(Scenario, values)
    except (StrataError, AttributeError) as error:
        raise StrataError(f"{path} holds no scenario ({str(error).splitlines()[0]}): {REMEDY}") from None


def grouped_examples(scenario: Scenario, texts: Sequence[ReferenceText]) -> Scenario:
    """The scenario with the texts of one label together: Activation Lab has a label for each text."""
    examples: dict[str, list[dict[str, Any]]] = {}
    for text, state in zip(texts, scenario.reference_states, strict=True):
        messages = [message.model_dump() for message in state.conversations[0]]
        examples.setdefault(text.label, []).append({"messages": messages})
    neutral = {text.label for text in texts if text.neutral}
    states = [{"label": label, "examples": found, "neutral": label in neutral} for label, found in examples.items()]
    return parse_config(Scenario, scenario.model_dump(exclude={"reference_states"}) | {"reference_states": states})


def lab_model(run: LabRunFile, scenario: Scenario, rows: Rows) -> dict[str, Any]:
    """The model as description.py describes one, as far as run.json and the states of a run tell.

    Raises StrataError where they contradict each other.
    """
    arch = run.model.get("arch") or {}
    _refuse_other_shape(arch, rows)
    n_heads = arch.get("num_attention_heads")
    width = rows.arrays["q"].shape[-1] if "q" in rows else None
    return {
        "name": str(run.model.get("id", "unknown")),
        "path": None,
        "revision": None,
        "dtype": scenario.model.dtype,
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


def _refuse_other_shape(arch: Mapping[str, Any], rows: Rows) -> None:
    found = {"num_layers": 1 + max(rows.layers, default=0)}
    if "resid_post" in rows:
        found["hidden_size"] = rows.arrays["resid_post"].shape[-1]
    for key, number in found.items():
        told = arch.get(key)
        fits = isinstance(told, int) and (told == number if key == "hidden_size" else number <= told <= _MOST_LAYERS)
        if told is not None and not fits:
            raise StrataError(
                f"run.json says {key}={told!r}, and the states are of {number}: these files do not belong together"
            )


def lab_tokenizer(told: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer as description.py describes one."""
    keys = ("bos_token_id", "eos_token_id", "pad_token_id", "chat_template")
    return {"d_vocab": told.get("vocab_size")} | {key: told.get(key) for key in keys}
