"""What a modulator is trained and judged on: token ids, and which of them are to be predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor
from torch.nn.functional import cross_entropy

from src.activations.collect import batches_of_like_length, right_padded
from src.models import LanguageModel, forward_pass
from src.text import Keep, TokenSequence

_IGNORED = -100


@dataclass(frozen=True, eq=False)
class Example:
    """One text.

    input_ids: what the model reads. target_ids: what an encoder-decoder is to answer; None: the model goes on with the
    text itself. predicted: which tokens of the target (of the input, where there is none) count in the loss.
    group: examples of one group (a document, a synset) are never on two sides of a split, and are the units of
    intervals.
    """

    input_ids: Int32[np.ndarray, " pos"]
    predicted: Bool[np.ndarray, " target"]
    group: int
    target_ids: Int32[np.ndarray, " target"] | None = None


def text_example(sequence: TokenSequence, group: int) -> Example:
    """Every counted token that has a token before it is to be predicted."""
    predicted = sequence.roles == Keep.COUNTED
    predicted[0] = False
    return Example(sequence.token_ids, predicted, group)


def changed_ids(model: LanguageModel, example: Example) -> Int32[np.ndarray, " pos"]:
    """The tokens of the stack whose residual stream is read and changed."""
    target = example.target_ids
    return target if model.inner.through_decoder and target is not None else example.input_ids


def predicted_logits(
    model: LanguageModel, examples: Sequence[Example]
) -> tuple[Float[Tensor, "predicted d_vocab"], Int[Tensor, " predicted"], Int[Tensor, " example"]]:
    """The logits that predict the predicted tokens of all examples, these tokens, and how many each example has.

    One pass of the model; gradients flow. The next token is predicted by the logits at the one before it, and an
    encoder-decoder shifts the target itself: no token is shown to the position that predicts it (BUG G-8), and the
    model scales its own logits (BUG G-9).

    Raises:
        StrataError: tokens that the model does not have, a pass that fails.
    """
    ids, mask = right_padded([example.input_ids for example in examples])
    model.check_token_ids(ids)
    ids, mask = ids.to(model.device), mask.to(model.device)
    labels = _labels(examples).to(model.device)
    extra = {"use_cache": False} if "use_cache" in model.forward_arguments else {}
    with forward_pass(model, tuple(ids.shape)):
        if examples[0].target_ids is None:
            logits = model.module(input_ids=ids, attention_mask=mask, **extra).logits[:, :-1]
            labels = labels[:, 1:]
        else:
            logits = model.module(input_ids=ids, attention_mask=mask, labels=labels, **extra).logits
        wanted = labels != _IGNORED
        return logits[wanted], labels[wanted], wanted.sum(1)


def example_losses(
    model: LanguageModel, examples: Sequence[Example]
) -> tuple[Float[Tensor, " example"], Int[Tensor, " example"]]:
    """-log P of the predicted tokens of each example, summed, in nats and in float32 at least, and how many they are.

    Raises:
        StrataError: as `predicted_logits`.
    """
    logits, ids, counts = predicted_logits(model, examples)
    with forward_pass(model, (len(examples), max(len(example.input_ids) for example in examples))):
        # only what is predicted is taken to float32
        losses = cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), ids, reduction="none")
        # segment by segment, since adding by index has no fixed order on a GPU
        return torch.segment_reduce(losses, "sum", lengths=counts, initial=0.0), counts


@torch.no_grad()
def losses_of(
    model: LanguageModel, examples: Sequence[Example], batch_size: int
) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
    """Sums of -log P over the predicted tokens of each example, and how many they are, float64 on the CPU.

    Raises StrataError as `example_losses` does.
    """
    sums, counts = torch.zeros(2, len(examples), dtype=torch.float64)
    for rows in batches_of_like_length(_lengths(examples), batch_size):
        found = example_losses(model, [examples[row] for row in rows])
        sums[rows], counts[rows] = (values.double().cpu() for values in found)
    return sums, counts


def passes(examples: Sequence[Example], per_pass: int) -> list[list[Example]]:
    """The examples of a step in forward passes of at most `per_pass`; those of like length stand together."""
    if len(examples) <= per_pass:
        return [list(examples)]
    return [[examples[row] for row in rows] for rows in batches_of_like_length(_lengths(examples), per_pass)]


def n_predicted(examples: Sequence[Example]) -> int:
    """How many tokens of them count in the loss."""
    return int(sum(example.predicted[example.target_ids is None :].sum() for example in examples))


def _lengths(examples: Sequence[Example]) -> Int[np.ndarray, " example"]:
    return np.array([len(example.input_ids) for example in examples])


def _labels(examples: Sequence[Example]) -> Int[Tensor, "example target"]:
    """Ids of what is to be predicted, -100 elsewhere."""
    longest = max(len(example.predicted) for example in examples)
    labels = torch.full((len(examples), longest), _IGNORED, dtype=torch.long)
    for row, example in zip(labels, examples, strict=True):
        ids = example.input_ids if example.target_ids is None else example.target_ids
        wanted = torch.from_numpy(example.predicted)
        row[: len(ids)][wanted] = torch.from_numpy(ids).long()[wanted]
    return labels
