"""A scenario captured in the manner of Activation Lab, for `bench_scenario`: own code, its way of working.

Eager attention; for every forward pass hooks are registered anew, and everything is taken to the host in float16 as it
passes by. The prompt and each generated token are written as a step; then each prefix of the conversation, header
included, and each reference is a forward pass of its own, kept whole. One deflated npz for each, an array for each
layer and key (specification, sections 1.3 and 2.4). Of llamas only, as the reference does not run on GPT-2.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

Said = dict[str, str]
Arrays = dict[str, np.ndarray]

# the keys of a layer, the module below it that they are read at, and whether there at its input
_KEYS = {
    "hidden_in": ("", True),
    "hidden_out": ("", False),
    "q": ("self_attn.q_proj", False),
    "k": ("self_attn.k_proj", False),
    "v": ("self_attn.v_proj", False),
    "attn_out": ("self_attn.o_proj", False),
    "mlp_gate": ("mlp.gate_proj", False),
    "mlp_up": ("mlp.up_proj", False),
    "mlp_act": ("mlp.act_fn", False),
    "mlp_down_in": ("mlp.down_proj", True),
    "mlp_down_out": ("mlp.down_proj", False),
}


def reference_way(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Said],
    references: dict[str, list[Said]],
    n_tokens: int,
    folder: Path | None,
) -> list[int]:
    """Capture a scenario into an existing folder (None: nothing is written); returns the generated tokens."""
    write = partial(_write, folder) if folder else _forget
    attention = str(module.config._attn_implementation)
    module.set_attn_implementation("eager")
    for label, said in references.items():
        write(f"references/ref_{label}.npz", _prefill(module, _tokens(tokenizer, said)))
    prompt = _tokens(tokenizer, messages)
    made, steps, cache, ids = [], [], None, prompt
    for step in range(n_tokens):
        arrays, output = _captured_pass(module, ids, cache)
        cache, logits = output.past_key_values, output.logits[0, -1].float()
        logprobs = logits.log_softmax(-1)
        best = logprobs.topk(20)
        made.append(int(logits.argmax()))
        steps.append(
            {
                "step": step,
                "kind": "decode" if step else "prefill",
                "input_token_ids": ids,
                "input_tokens": [tokenizer.decode([each]) for each in ids],
                "generated_token_id": made[-1],
                "generated_token": tokenizer.decode([made[-1]]),
                "logit_argmax_logprob": float(logprobs[made[-1]]),
                "top_k": [
                    {"id": int(i), "token": tokenizer.decode([int(i)]), "logprob": float(p)}
                    for p, i in zip(best.values, best.indices, strict=True)
                ],
                "logit_stats": {"entropy": float(-(logprobs.exp() * logprobs).sum())},
                "tensors_file": f"tensors/step_{step:03d}.npz",
                "tensor_index": _index(arrays),
            }
        )
        write(f"tensors/step_{step:03d}.npz", arrays)
        ids = made[-1:]
    reply = {"role": "assistant", "content": "".join(str(tokenizer.decode([token])) for token in made)}
    said, snapshots = [*messages, reply], []
    for index, message in enumerate(said):
        ids = _tokens(tokenizer, said[: index + 1])
        arrays = _prefill(module, ids)
        name = f"conversation_snapshots/snapshot_{index:02d}_{message['role']}.npz"
        snapshots.append({"role": message["role"], "input_token_ids": ids, "tensor_index": _index(arrays)})
        write(name, arrays)
    if folder:
        (folder / "steps.json").write_text(json.dumps({"steps": steps}, indent=2))
        (folder / "conversation_snapshots" / "index.json").write_text(json.dumps({"snapshots": snapshots}, indent=2))
    module.set_attn_implementation(attention)
    return made


def _tokens(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Said]) -> list[int]:
    text = str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    return tokenizer(text).input_ids  # pyright: ignore[reportReturnType]


def _prefill(module: PreTrainedModel, ids: list[int]) -> Arrays:
    """Everything of one pass but the values; in their stead a row for each layer that mixes query, key and value."""
    arrays, _ = _captured_pass(module, ids, None, use_cache=False)
    rows = []
    for layer in range(module.config.num_hidden_layers):
        q, k, v = (arrays[f"layer_{layer:02d}/{name}"][0, -1].astype(np.float32) for name in "qkv")
        width = min(len(q), len(k))
        rows.append(v * (q[:width] @ k[:width]) / np.sqrt(width))
        del arrays[f"layer_{layer:02d}/v"]
    arrays["qkv_last"] = np.stack(rows)
    return arrays


@torch.no_grad()
def _captured_pass(
    module: PreTrainedModel, ids: list[int], cache: Any, *, use_cache: bool = True
) -> tuple[Arrays, Any]:
    arrays: Arrays = {}

    def keep(name: str, value: Tensor) -> None:
        arrays[name] = value.detach().to("cpu", torch.float16).numpy()

    with _hooked(module, keep):
        output = module(
            torch.tensor([ids]), past_key_values=cache, use_cache=use_cache, output_attentions=True, return_dict=True
        )
    for layer, weights in enumerate(output.attentions):
        keep(f"layer_{layer:02d}/attn_weights", weights)
    keep("logits", output.logits)
    return arrays, output


@contextmanager
def _hooked(module: PreTrainedModel, keep: Callable[[str, Tensor], None]) -> Iterator[None]:
    decoder: Any = module.get_decoder()
    with ExitStack() as hooks:

        def watch(target: Any, name: str, at_input: bool) -> None:
            if at_input:
                hook = target.register_forward_pre_hook(lambda _, inputs: keep(name, inputs[0]))
            else:
                hook = target.register_forward_hook(
                    lambda _, __, out: keep(name, out[0] if isinstance(out, tuple) else out)
                )
            hooks.callback(hook.remove)

        watch(module.get_input_embeddings(), "embeddings", False)
        for layer, block in enumerate(decoder.layers):
            for key, (path, at_input) in _KEYS.items():
                watch(block.get_submodule(path), f"layer_{layer:02d}/{key}", at_input)
        yield


def _index(arrays: Arrays) -> dict[str, dict[str, Any]]:
    return {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()}


def _write(folder: Path, name: str, arrays: Arrays) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]


def _forget(name: str, arrays: Arrays) -> None:
    del name, arrays
