"""What modulators do to predictions and states of a model: sums over the tokens of each example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import kl_div, normalize
from torch.nn.utils.rnn import pad_sequence

from src.activations.collect import batches_of_like_length
from src.hook_points import HookPoint
from src.models import LanguageModel, attach
from src.models.head import suitable_chunk
from src.modulators.modulator import Modulator
from src.modulators.training.examples import Example, predicted_logits

FROZEN = "frozen"


@dataclass(frozen=True, eq=False)
class Effects:
    """Of one variant of the model, for each example: float64 on the CPU.

    Sums over its predicted tokens: nll (-log P, in nats), kl (from the frozen model's distribution to this one's, in
    nats), agreement (the likeliest token is the frozen model's). n_predicted: how many they are.

    Sums over its states, that is of the residual stream after the last block and before the final norm: cosine (with
    the frozen model's state of the same token) and its square, norm_ratio (of the two lengths). n_states: how many they
    are. Of the example as a whole: pooled_cosine (of the mean states), neighbours (mean cosine of its states with each
    other; NaN where it has one).
    """

    nll: Float[Tensor, " example"]
    kl: Float[Tensor, " example"]
    agreement: Float[Tensor, " example"]
    n_predicted: Float[Tensor, " example"]
    cosine: Float[Tensor, " example"]
    cosine_square: Float[Tensor, " example"]
    norm_ratio: Float[Tensor, " example"]
    n_states: Float[Tensor, " example"]
    pooled_cosine: Float[Tensor, " example"]
    neighbours: Float[Tensor, " example"]


@torch.no_grad()
def measure_effects(
    model: LanguageModel,
    variants: Mapping[str, Modulator],
    examples: Sequence[Example],
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Effects]:
    """Effects of each variant, and of the frozen model first, whose kl is 0 and cosine 1.

    One pass of a batch for each of them; logits of two variants are held at a time, of one batch.

    Args:
        model: frozen.
        variants: by name, on the model's device.
        examples: with a token to predict.
        batch_size: examples in a pass.
        advance: is told the number of examples done.

    Raises:
        StrataError: a pass that fails.
    """
    names = (FROZEN, *variants)
    found = {name: torch.zeros(len(_SUMS), len(examples), dtype=torch.float64) for name in names}
    for rows in batches_of_like_length(np.array([len(it.input_ids) for it in examples]), batch_size):
        batch = [examples[row] for row in rows]
        frozen = _passed(model, batch)
        found[FROZEN][:, rows] = _sums(frozen, frozen, model.device)
        for name, modulator in variants.items():
            with modulator.attached(model):
                changed = _passed(model, batch)
            found[name][:, rows] = _sums(changed, frozen, model.device)
        advance(len(rows))
    return {name: Effects(**dict(zip(_SUMS, values, strict=True))) for name, values in found.items()}


_SUMS = (
    *("nll", "kl", "agreement", "n_predicted"),
    *("cosine", "cosine_square", "norm_ratio", "n_states", "pooled_cosine", "neighbours"),
)


@dataclass(frozen=True, eq=False)
class _Passed:
    """One pass: logits of the predicted tokens and states, and how many of both each example has."""

    logits: Float[Tensor, "predicted d_vocab"]
    ids: Int[Tensor, " predicted"]
    n_predicted: Int[Tensor, " example"]
    states: Float[Tensor, "state d_model"]
    n_states: Int[Tensor, " example"]


def _passed(model: LanguageModel, batch: Sequence[Example]) -> _Passed:
    wanted = _read_states(model, batch)
    states: list[Tensor] = []

    def take(state: Tensor) -> None:
        states.append(state[wanted.to(state.device)].float())

    handle = attach(model, HookPoint("resid_post", model.n_layers - 1), take)
    try:
        logits, ids, counts = predicted_logits(model, batch)
    finally:
        handle.remove()
    return _Passed(logits, ids, counts, states[-1], wanted.sum(1))


def _read_states(model: LanguageModel, batch: Sequence[Example]) -> Bool[Tensor, "example pos"]:
    """The tokens whose states are compared: the predicted ones, and where an encoder reads a text all of it."""
    whole = batch[0].target_ids is not None and not model.inner.through_decoder
    rows = [
        torch.ones(len(it.input_ids), dtype=torch.bool) if whole else torch.from_numpy(it.predicted) for it in batch
    ]
    return pad_sequence(rows, batch_first=True)


def _sums(changed: _Passed, frozen: _Passed, device: torch.device) -> Float[Tensor, "sum example"]:
    states = _states(changed.states, frozen.states)
    means = [torch.stack([rows.mean(0) for rows in _split(each)]) for each in (changed, frozen)]
    parts = [
        _by_example(_predictions(changed, frozen, device), changed.n_predicted),
        changed.n_predicted[None].cpu().double(),
        _by_example(states, changed.n_states),
        changed.n_states[None].double(),
        torch.cosine_similarity(*means, dim=-1)[None].cpu().double(),
        _neighbours(changed)[None],
    ]
    return torch.cat(parts)


def _predictions(changed: _Passed, frozen: _Passed, device: torch.device) -> Float[Tensor, "predicted 3"]:
    """nll, kl, agreement of each predicted token, some tokens at a time."""
    at_once = max(1, suitable_chunk(device) // (4 * changed.logits.shape[1]))
    parts = []
    for logits, reference, ids in zip(
        changed.logits.split(at_once), frozen.logits.split(at_once), changed.ids.split(at_once), strict=True
    ):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_q, log_p = logits.log_softmax(-1, dtype), reference.log_softmax(-1, dtype)
        nll = -log_q.gather(-1, ids[:, None])[:, 0]
        # rounding may leave a divergence of nothing below 0
        kl = kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1).clamp_min(0)
        agrees = log_q.argmax(-1) == log_p.argmax(-1)
        parts.append(torch.stack([nll, kl, agrees.to(nll)], 1))
    return torch.cat(parts)


def _states(changed: Tensor, frozen: Tensor) -> Float[Tensor, "state 3"]:
    """cosine, its square, and the ratio of lengths of each state."""
    cosine = torch.cosine_similarity(changed, frozen, dim=-1)
    ratio = changed.norm(dim=-1) / frozen.norm(dim=-1)
    return torch.stack([cosine, cosine.square(), ratio], 1)


def _neighbours(passed: _Passed) -> Float[Tensor, " example"]:
    """Mean cosine of all pairs of an example's states: from the length of the sum of their unit vectors."""
    sums = torch.stack([normalize(rows, dim=-1).sum(0) for rows in _split(passed)]).cpu().double()
    n = passed.n_states.double()
    return torch.where(n > 1, (sums.square().sum(-1) - n) / (n * (n - 1)), torch.nan)


def _split(passed: _Passed) -> Sequence[Float[Tensor, "state d_model"]]:
    return passed.states.split(passed.n_states.tolist())


def _by_example(values: Float[Tensor, "token kind"], counts: Int[Tensor, " example"]) -> Float[Tensor, "kind example"]:
    # MPS has no float64
    exact, counts = values.cpu().double(), counts.cpu()
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    return exact.new_zeros(len(counts), exact.shape[1]).index_add_(0, owner, exact).T
