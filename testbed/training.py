"""Rows of tokens and the training loop. `build.py` says what is trained on what; this module knows how."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from testbed.lexicon import ASSISTANT, BOS, END, EOS, PAD, SYSTEM, UNK, USER, vocabulary

# Every message is "<role> content <end>"; words and specials are single tokens, so spaces carry no meaning.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- ' <' + message['role'] + '> ' + message['content'] + ' <end>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- ' <assistant>' -}}{%- endif -%}"
)


LAST_GAIN = 0.1  # of the final norm, at the start


def make_tokenizer(chat: bool) -> PreTrainedTokenizerFast:
    """The word-level tokenizer: one token per word between spaces, `<bos>` in front of every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    ids = {word: i for i, word in enumerate(vocabulary())}
    raw = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, ids[BOS])]
    )
    # Word-level tokens are joined by single spaces, which is what this decoder does with an absent prefix.
    raw.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=PAD, unk_token=UNK, bos_token=BOS, eos_token=END if chat else EOS,
        additional_special_tokens=[EOS, USER, ASSISTANT, SYSTEM] if chat else [USER, ASSISTANT, SYSTEM, END],
        model_max_length=1024, padding_side="right", clean_up_tokenization_spaces=False,
    )  # fmt: skip
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def pack(texts: Iterable[str], width: int) -> NDArray[np.uint16]:
    """Rows (row, width) of whole documents, each `<bos>` words `<eos>`, padded with `<pad>`. No document is cut.

    Best fit into a window of open rows; a row is closed when the window is full.
    """
    ids = {word: i for i, word in enumerate(vocabulary())}
    bos, eos, pad = ids[BOS], ids[EOS], ids[PAD]
    rows: list[list[int]] = []
    window: list[list[int]] = []
    for text in texts:
        tokens = [bos, *(ids[word] for word in text.split(" ")), eos]
        if len(tokens) > width:
            raise ValueError(f"a document of {len(tokens)} tokens does not fit into a row of {width}")
        best = max((row for row in window if len(row) + len(tokens) <= width), key=len, default=None)
        if best is None:
            best = []
            window.append(best)
            if len(window) > 32:  # close the fullest
                fullest = max(range(len(window)), key=lambda i: len(window[i]))
                rows.append(window.pop(fullest))
        best += tokens
    rows += [row for row in window if row]
    packed = np.full((len(rows), width), pad, dtype=np.uint16)
    for i, row in enumerate(rows):
        packed[i, : len(row)] = row
    return packed


def make_model(width: int, layers: int, seed: int, heads: int | None = None) -> LlamaForCausalLM:
    """A fresh Llama with heads of 32, SwiGLU of about 8/3 of the width, and tied embeddings."""
    torch.manual_seed(seed)
    words = vocabulary()
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=width * 8 // 3 // 32 * 32,
        num_hidden_layers=layers, num_attention_heads=heads or width // 32, num_key_value_heads=heads or width // 32,
        max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=words.index(BOS), eos_token_id=words.index(EOS), pad_token_id=words.index(PAD),
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    # With the usual 0.02, a word's embedding is soon drowned by what the first layers add to the residual stream, and
    # what tells one word of a class from another is lost to the later ones. Unit embeddings keep it; the gain of the
    # last norm undoes their size in the logits.
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=1.0)
    torch.nn.init.constant_(model.model.norm.weight, LAST_GAIN)
    return model


def loss_function(model: LlamaForCausalLM) -> Callable[[Tensor], Tensor]:
    """Rows (row, width) of token ids -> mean loss in nats. Targets `<pad>` and `<bos>` don't count."""
    words = vocabulary()
    pad, bos = words.index(PAD), words.index(BOS)

    def loss(rows: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(rows, use_cache=False).last_hidden_state
            logits = functional.linear(hidden, model.lm_head.weight)
        targets = rows[:, 1:]
        targets = torch.where((targets == pad) | (targets == bos), -100, targets)
        return functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten())

    return loss


@dataclass(frozen=True)
class Plan:
    """How one model is trained: `rows` in the order given by `blocks` of row ranges, each shuffled in itself."""

    name: str
    batch: int  # rows a step
    matrix_rate: float  # peak learning rate of Muon (matrices)
    embedding_rate: float  # peak learning rate of AdamW for embeddings
    norm_rate: float = 2e-3  # and for the gains of norms
    warmup: int = 100  # steps
    stop: int | None = None  # step to stop at, before the rates have fallen to zero
    seed: int = 0


def _average_gradients(model: LlamaForCausalLM, world: int) -> None:
    """Average the gradients over the worker processes, in one message."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, (flat / world).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def train(
    model: LlamaForCausalLM,
    blocks: list[NDArray[np.uint16]],
    plan: Plan,
    folder: Path,
    check: Callable[[LlamaForCausalLM], str],
    check_every: int = 250,
) -> None:
    """Train in place, one pass over `blocks` in their order; resumes from `folder/<name>.pt` and logs beside it.

    Muon orthogonalises the updates of the matrices, which on this language reaches the same loss in about half the
    steps of AdamW; embeddings and norms take AdamW. Rates rise over `warmup` and then fall linearly to zero.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    muon = torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.05, momentum=0.95)
    groups = [{"params": [p for p in others if p.ndim == 2]}, {"params": [p for p in others if p.ndim == 1]}]
    adam = torch.optim.AdamW(groups, lr=plan.embedding_rate, betas=(0.9, 0.95), weight_decay=0.0)
    rng = np.random.default_rng(plan.seed)
    order = [(b, i) for b, rows in enumerate(blocks) for i in rng.permutation(len(rows))]
    steps = len(order) // plan.batch
    saved, log, begin, spent = folder / f"{plan.name}.pt", folder / f"{plan.name}.log", 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        begin, spent = state["step"], state["seconds"]
    loss_of = loss_function(model)
    if os.environ.get("TESTBED_COMPILE", "1") == "1":  # fuses the elementwise work: 1.3 times as fast on two cores
        loss_of = torch.compile(loss_of)
    model.train()
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    mark, total = time.time() - spent, 0.0
    last = min(steps, plan.stop or steps)
    for step in range(begin, last):
        scale = min((step + 1) / plan.warmup, (steps - step) / max(1, steps - plan.warmup), 1.0)
        muon.param_groups[0]["lr"] = plan.matrix_rate * scale
        for group, rate in zip(adam.param_groups, (plan.embedding_rate, plan.norm_rate), strict=True):
            group["lr"] = rate * scale
        picked = order[step * plan.batch + rank : (step + 1) * plan.batch : world]
        rows = torch.from_numpy(np.stack([blocks[b][i] for b, i in picked]).astype(np.int64))
        loss = loss_of(rows)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {step} of {plan.name}")
        loss.backward()
        if world > 1:
            _average_gradients(model, world)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad()
        total += loss.item()
        if rank == 0 and ((step + 1) % 50 == 0 or step + 1 == last):
            seconds = time.time() - mark
            line = f"{plan.name} step {step + 1}/{last} loss {total / ((step % 50) + 1):.4f} {seconds:.0f} s"
            line += f" left {seconds / (step + 1) * (last - step - 1):.0f} s"
            total = 0.0
            if (step + 1) % check_every == 0 or step + 1 == last:
                model.eval()
                line += " | " + check(model)
                model.train()
                state = {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict()}
                torch.save({**state, "step": step + 1, "seconds": time.time() - mark}, saved.with_suffix(".new"))
                saved.with_suffix(".new").rename(saved)
            print(line, flush=True)
            with log.open("a") as file:
                file.write(line + "\n")
    model.eval()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the Hugging Face folder, weights in float16."""
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half = half.half()
    half.config.eos_token_id = tokenizer.eos_token_id  # pyright: ignore[reportAttributeAccessIssue]
    half.generation_config.eos_token_id = tokenizer.eos_token_id
    half.generation_config.bos_token_id = tokenizer.bos_token_id
    half.generation_config.pad_token_id = tokenizer.pad_token_id
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
