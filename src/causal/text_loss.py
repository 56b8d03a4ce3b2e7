"""A model's perplexity on a text: the negative log-likelihood of counted tokens, with pads and specials left out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.collect import batches_of_like_length, right_padded
from src.errors import StrataError
from src.features.training.reconstruction import Ratio, ratio_of_sums
from src.hook_points import HookPoint
from src.models import LanguageModel, VocabularyHead, run_with_hooks
from src.text import Keep, TokenSequence


@dataclass(frozen=True)
class TextLoss:
    """How well a model predicts a text.

    Attributes:
        nll: mean over predicted tokens, in nats, with its 95 % interval over documents.
        bits_per_byte: of the text (UTF-8): what models of different tokenizers are compared by.
        n_tokens, n_documents: predicted tokens, and texts.
    """

    nll: Ratio
    bits_per_byte: Ratio
    n_tokens: int
    n_documents: int

    @property
    def perplexity(self) -> Ratio:
        """The exponential of the mean NLL, and of the ends of its interval."""
        return Ratio(*(math.exp(value) for value in (self.nll.value, self.nll.low, self.nll.high)))


def text_loss(
    model: LanguageModel,
    sequences: Sequence[TokenSequence],
    n_bytes: Sequence[int],
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> TextLoss:
    """The loss of every counted token that has a token before it.

    Args:
        model: a causal LM.
        sequences: documents; padding to a common length is on the right, and is never predicted.
        n_bytes: of the text of each document's predicted tokens.
        batch_size: documents in a forward pass.
        advance: is told the number of documents done.

    Raises:
        StrataError: NotApplicableError if the model does not predict the next token; no token to predict; a failing
            pass.
    """
    head = VocabularyHead(model)
    last = HookPoint("resid_post", model.n_layers - 1)
    sums, counts = torch.zeros(len(sequences), dtype=torch.float64), torch.zeros(len(sequences), dtype=torch.float64)
    for rows in batches_of_like_length(np.array([len(it.token_ids) for it in sequences]), batch_size):
        batch = [sequences[row] for row in rows]
        ids, mask = right_padded([it.token_ids for it in batch])
        predicted = torch.zeros(ids.shape, dtype=torch.bool)
        for place, it in enumerate(batch):
            predicted[place, : len(it.roles)] = torch.from_numpy(it.roles == Keep.COUNTED)
        predicted = predicted[:, 1:]
        advance(len(rows))
        if not predicted.any():
            continue
        states: list[Float[Tensor, "token d_model"]] = []

        def take(
            _: HookPoint,
            state: Float[Tensor, "batch pos d_model"],
            wanted: Tensor = predicted,
            states: list[Tensor] = states,
        ) -> None:
            states.append(state[:, :-1][wanted.to(state.device)].clone())

        run_with_hooks(model, ids, mask, [last], take)
        nll = torch.zeros(predicted.shape, dtype=torch.float64)
        nll[predicted] = head.nll(states[0], ids[:, 1:][predicted].to(model.device)).double().cpu()
        sums[rows], counts[rows] = nll.sum(1), predicted.sum(1).double()
    if not counts.any():
        raise StrataError("no document has a token to predict: choose another dataset=...")
    known = counts > 0
    bits = sums[known] / math.log(2)
    return TextLoss(
        ratio_of_sums(sums[known], counts[known]),
        ratio_of_sums(bits, torch.tensor(n_bytes, dtype=torch.float64)[known]),
        int(counts.sum()),
        int(known.sum()),
    )
