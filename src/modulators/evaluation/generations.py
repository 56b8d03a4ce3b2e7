"""Texts that a model goes on with, frozen and modulated, and how far they lie apart."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int32

from src.models import LanguageModel, forward_pass
from src.modulators.modulator import Modulator
from src.modulators.training.examples import Example, example_losses


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: the likeliest one (greedy), or drawn from the likeliest that reach top_p."""

    temperature: float = 1.0
    top_p: float = 0.9


@torch.no_grad()
def generate(
    model: LanguageModel,
    modulator: Modulator | None,
    prompt: Int32[np.ndarray, " pos"],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Int32[np.ndarray, " new"]:
    """The tokens after a prompt (of an encoder-decoder: its answer to it), by transformers' `generate`.

    sampling: None is greedy. seed: of the draws; with the same seed the frozen and the modulated model are given the
    same random numbers at each step, so that texts of like distributions are alike. The generator of the process is
    left as it was.

    Raises:
        StrataError: a pass that fails.
    """
    ids = torch.from_numpy(prompt).long()[None].to(model.device)
    model.check_token_ids(ids)
    keys = {"do_sample": False} if sampling is None else {"do_sample": True, "top_k": 0, **vars(sampling)}
    pad = model.module.generation_config.pad_token_id if model.module.generation_config else None
    cached = modulator is None or not modulator.needs_whole_passes
    devices = [] if model.device.type == "cpu" else [model.device]
    with (
        torch.random.fork_rng(devices, device_type=model.device.type if devices else "cuda"),
        attached(model, modulator),
        forward_pass(model, tuple(ids.shape)),
    ):
        torch.manual_seed(seed)
        made = model.module.generate(  # pyright: ignore[reportCallIssue]
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            num_beams=1,
            use_cache=cached,
            pad_token_id=0 if pad is None else pad,
            **keys,
        )[0]
    # the answer of a decoder begins with its start token
    begin = 1 if model.module.config.is_encoder_decoder else ids.shape[1]
    return made[begin:].cpu().numpy().astype(np.int32)


def attached(model: LanguageModel, modulator: Modulator | None) -> AbstractContextManager[None]:
    """Nothing is changed where there is no modulator."""
    return nullcontext() if modulator is None else modulator.attached(model)


@torch.no_grad()
def continuation_nll(
    model: LanguageModel,
    modulator: Modulator | None,
    prompt: Int32[np.ndarray, " pos"],
    continuation: Int32[np.ndarray, " new"],
) -> float:
    """-log P of a continuation after a prompt, in nats, summed over its tokens."""
    if model.module.config.is_encoder_decoder:
        example = Example(prompt, np.ones(len(continuation), bool), 0, continuation)
    else:
        predicted = np.arange(len(prompt) + len(continuation)) >= len(prompt)
        example = Example(np.concatenate([prompt, continuation]), predicted, 0)
    with attached(model, modulator):
        return float(example_losses(model, [example])[0][0])


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Insertions, deletions and replacements of tokens that make one of the other (Levenshtein 1966)."""
    before = np.arange(len(other) + 1)
    for count, token in enumerate(one, start=1):
        replaced = before[:-1] + (np.asarray(other) != token)
        row = np.concatenate([[count], np.minimum(replaced, before[1:] + 1)])
        # an insertion costs 1 a place: the least of all places to the left, and the way from there
        before = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))
    return int(before[-1])
