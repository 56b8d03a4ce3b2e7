"""The logit lens: what the model would predict if its blocks ended here.

nostalgebraist, "interpreting GPT: the logit lens" (2020). With maps to the last layer in front it is a lens in the
manner of the tuned lens (Belrose et al. 2023, arXiv 2303.08112), whose affine translators are fitted to distributions
where our transport operators are fitted to activations.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

# tensors of a chunk's size that are alive at once: both log-probabilities, their mixture, and what is summed
_ALIVE = 6

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LensReadings:
    """What a lens reads at each layer and row; logarithms and divergences in nats, float32.

    top_ids, top_logprobs: likeliest first. entropy: of the layer's distribution p. kl_layer_final: KL(p || f), f the
    model's own final distribution (Activation Lab's kl_from_final); kl_final_layer: KL(f || p); js: Jensen-Shannon,
    at most ln 2. target_logprob, target_rank: of each row's target token; rank 1 = nothing is likelier.
    """

    top_ids: Int[Tensor, "layer row k"]
    top_logprobs: Float[Tensor, "layer row k"]
    entropy: Float[Tensor, "layer row"]
    kl_layer_final: Float[Tensor, "layer row"]
    kl_final_layer: Float[Tensor, "layer row"]
    js: Float[Tensor, "layer row"]
    target_logprob: Float[Tensor, "layer row"]
    target_rank: Int[Tensor, "layer row"]


def read_lens(
    head: Head,
    states: Float[Tensor, "layer row d_model"],
    final_logits: Float[Tensor, "row d_vocab"],
    targets: Int[Tensor, "row"],
    top_k: int,
    maps: Mapping[int, Head] | None = None,
    rows_at_once: int = 64,
) -> LensReadings:
    """Read states of several layers through the model's own head, against its own final distribution.

    Args:
        head: the model's final norm, vocabulary head, soft cap and scale (models.VocabularyHead), on a device of its
            own: states are moved to it.
        states: resid_post.
        final_logits: what the model really gave.
        targets: the token that each row is asked about.
        top_k: likeliest tokens that are kept.
        maps: by place among the layers: what a state goes through before the head (a transport operator to the last
            layer); places that are not there go straight to the head.
        rows_at_once: rows of log-probabilities that memory may hold.
    """
    size = max(1, rows_at_once // _ALIVE)
    parts = [
        _read(head, rows, final, target, top_k, maps or {})
        for rows, final, target in zip(
            states.split(size, dim=1), final_logits.split(size), targets.split(size), strict=True
        )
    ]
    joined = {field.name: torch.cat([getattr(part, field.name) for part in parts], 1) for field in fields(LensReadings)}
    return LensReadings(**joined)


def logits_in_chunks(
    head: Head, states: Float[Tensor, "row d_model"], rows_at_once: int = 64
) -> Float[Tensor, "row d_vocab"]:
    """The head's logits of many rows, on the CPU, in float32."""
    return torch.cat([head(rows).float().cpu() for rows in states.split(max(1, rows_at_once))])


def entropy_of(logprobs: Float[Tensor, "*row d_vocab"]) -> Float[Tensor, "*row"]:
    """-sum p log p in nats; tokens of probability 0 add nothing."""
    return -_expected(logprobs, logprobs)


def divergences(
    first: Float[Tensor, "*row d_vocab"], second: Float[Tensor, "*row d_vocab"]
) -> tuple[Float[Tensor, "*row"], Float[Tensor, "*row"], Float[Tensor, "*row"]]:
    """KL(first || second), KL(second || first) and the Jensen-Shannon divergence of log-probabilities, in nats.

    A KL is inf where the second rules out what the first allows. What rounding leaves below 0 is 0.
    """
    mixture = torch.where(first == second, first, torch.logaddexp(first, second) - math.log(2))
    there, back = _expected(first, first - second), _expected(second, second - first)
    js = (_expected(first, first - mixture) + _expected(second, second - mixture)) / 2
    return there.clamp(min=0), back.clamp(min=0), js.clamp(0, math.log(2))


def rank_of(logprobs: Float[Tensor, "row d_vocab"], ids: Int[Tensor, "row"]) -> Int[Tensor, "row"]:
    """1 + the number of tokens that are likelier; 0 where the row holds NaN."""
    own = logprobs.gather(-1, ids[:, None])
    return torch.where(own[:, 0].isnan(), 0, 1 + (logprobs > own).sum(-1))


def _expected(logprobs: Tensor, values: Tensor) -> Tensor:
    """Sum of p * value, where p > 0 (inf - inf at p = 0 is no number, and counts for nothing)."""
    return torch.where(logprobs == -torch.inf, 0.0, logprobs.exp() * values).sum(-1)


def _read(
    head: Head,
    states: Float[Tensor, "layer row d_model"],
    final_logits: Float[Tensor, "row d_vocab"],
    targets: Int[Tensor, "row"],
    top_k: int,
    maps: Mapping[int, Head],
) -> LensReadings:
    found: list[LensReadings] = []
    final: Tensor | None = None
    for place, rows in enumerate(states):
        logprobs = head(maps[place](rows) if place in maps else rows).log_softmax(-1, torch.float32)
        if final is None:
            final, targets = (
                final_logits.to(logprobs.device).log_softmax(-1, torch.float32),
                targets.to(logprobs.device),
            )
        top = logprobs.topk(min(top_k, logprobs.shape[-1]))
        found.append(
            LensReadings(
                top.indices,
                top.values,
                entropy_of(logprobs),
                *divergences(logprobs, final),
                logprobs.gather(-1, targets[:, None])[:, 0],
                rank_of(logprobs, targets),
            )
        )
    return LensReadings(
        **{
            field.name: torch.stack([getattr(each, field.name) for each in found]).cpu()
            for field in fields(LensReadings)
        }
    )


def agreement(readings: LensReadings, final_ids: Int[Tensor, "row"]) -> Float[Tensor, "layer"]:
    """The share of rows whose likeliest token at a layer is the model's likeliest token."""
    return (readings.top_ids[:, :, 0] == final_ids).float().mean(1)


def settled_layer(readings: LensReadings, layers: Sequence[int]) -> Int[Tensor, "row"]:
    """For each row the first layer from which on the target stays the likeliest token; -1 if it is not at the end."""
    first = readings.target_rank == 1
    stays = first.flip(0).cumprod(0).flip(0).bool()
    places = torch.tensor([*layers, -1], device=first.device)
    return places[torch.where(stays.any(0), stays.int().argmax(0), len(layers))]
