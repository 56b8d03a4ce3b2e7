"""Read a conversation with a model, let it go on, and keep the states that a scenario asks for."""

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.models import LanguageModel
from src.models.recording import ActivationRecorder
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Message, Prompt, ReferenceState
from src.scenarios.states import (
    LOGITS,
    RESIDUAL_SOURCES,
    Conversation,
    Generation,
    References,
    ReferenceText,
    Rows,
    Snapshot,
    SpokenMessage,
    Step,
    TopToken,
    kept_resid_pre,
)


def capture_conversation(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    prompt: Prompt,
    generation: GenerationSettings,
    capture: CaptureSettings,
) -> Conversation:
    """One conversation, read message by message, with the model's own continuation."""
    spoken = [SpokenMessage(message.role, message.content, message.label) for message in prompt.messages]
    ids = [_render(tokenizer, spoken[: end + 1], False) for end in range(len(spoken))]
    whole = _render(tokenizer, spoken, True)
    made = _generate(model, tokenizer, whole, len(spoken), generation, capture)
    spoken.append(SpokenMessage("assistant", made.text, generated=True))
    snapshots, parts = [], []
    for index in range(len(spoken)):
        for position in capture.positions:
            prefix = _render(tokenizer, spoken[: index + 1], position == "answer")
            snapshots.append(Snapshot(index, position, len(prefix) - 1))
            parts.append(_last_row(model, prefix, capture)[0])
    rows = parts[0].arrays
    return Conversation(
        name=name,
        messages=spoken,
        token_ids=whole,
        tokens=[tokenizer.decode([token]) for token in whole],
        message_ends=[len(prefix) - 1 for prefix in ids],
        snapshots=snapshots,
        snapshot_rows=Rows(
            parts[0].layers, {source: torch.cat([part.arrays[source] for part in parts], 1) for source in rows}
        ),
        generations=[made],
        control=prompt.control,
    )


def capture_references(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    references: list[ReferenceState],
    capture: CaptureSettings,
) -> References:
    """The states of reference texts."""
    texts, parts = [], {position: [] for position in capture.positions}
    for reference in references:
        for example, messages in enumerate(reference.conversations):
            for position in capture.positions:
                prefix = _render(tokenizer, messages, position == "answer")
                parts[position].append(_last_row(model, prefix, capture)[0])
            preview = messages[-1].content[:80]
            texts.append(ReferenceText(reference.label, example, reference.neutral, preview, len(prefix)))
    joined = {
        position: Rows(
            found[0].layers, {name: torch.cat([part.arrays[name] for part in found], 1) for name in found[0].arrays}
        )
        for position, found in parts.items()
        if found
    }
    return References(texts, joined)


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[SpokenMessage] | list[Message], header: bool
) -> list[int]:
    return tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in messages],
        add_generation_prompt=header,
        return_dict=False,
    )  # pyright: ignore[reportReturnType]


def _last_row(model: LanguageModel, ids: list[int], capture: CaptureSettings) -> tuple[Rows, torch.Tensor]:
    layers = list(range(model.n_layers)) if capture.layers == "all" else sorted(capture.layers)
    with ActivationRecorder(model, RESIDUAL_SOURCES, layers) as recorder, torch.inference_mode():
        tokens = torch.tensor([ids], device=model.device)
        recorder.want(torch.tensor([0]), torch.tensor([len(ids) - 1]))
        logits = model.module(tokens, attention_mask=torch.ones_like(tokens)).logits[:, -1]
        arrays = recorder.take()
    first = [layers.index(layer) for layer in kept_resid_pre(layers)]
    arrays["resid_pre"] = arrays["resid_pre"][first]
    arrays[LOGITS] = logits[None].clone()
    return Rows(tuple(layers), {name: array.cpu() for name, array in arrays.items()}), logits[0]


def _generate(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    after: int,
    generation: GenerationSettings,
    capture: CaptureSettings,
) -> Generation:
    steps, parts, made = [], [], []
    ends = model.module.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or [])
    for step in range(generation.max_new_tokens):
        rows, logits = _last_row(model, [*ids, *made], capture)
        logprobs = logits.float().log_softmax(-1)
        token = int(logprobs.argmax())
        entropy = float(-(logprobs.exp() * logprobs).sum())
        best = logprobs.topk(min(capture.top_k_probs, len(logprobs)))
        steps.append(
            Step(
                step=step,
                kind="decode" if step else "prefill",
                input_token_ids=[made[-1]] if step else ids,
                generated_token_id=token,
                generated_token=tokenizer.decode([token]),
                logprob=float(logprobs[token]),
                seq_len=len(ids) + step,
                entropy=entropy,
                effective_vocab=float(torch.tensor(entropy).exp()),
                top1_prob=float(logprobs.max().exp()),
                top_k=[
                    TopToken(int(i), tokenizer.decode([int(i)]), float(p))
                    for p, i in zip(best.values, best.indices, strict=True)
                ],
            )
        )
        parts.append(rows)
        made.append(token)
        if token in ends:
            break
    joined = {name: torch.cat([part.arrays[name] for part in parts], 1) for name in parts[0].arrays}
    text = tokenizer.decode(made, skip_special_tokens=True)
    return Generation(after, made, str(text), made[-1] in ends, steps, Rows(parts[0].layers, joined))
