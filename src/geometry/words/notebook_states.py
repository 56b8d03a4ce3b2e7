"""The contextual representation of the published notebook: the mean last state of `summarize: ` and the definition."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.activations.collect import batches_of_like_length, right_padded
from src.models import LanguageModel, forward_pass
from src.models.inner import hidden_state

PREFIX, MAX_LENGTH, BATCH_SIZE = "summarize: ", 128, 64


def notebook_contextual(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    definitions: Sequence[str],
    advance: Callable[[int], None] = lambda _: None,
) -> Float32[np.ndarray, "word d"]:
    """Mean over all tokens (prefix and end token too) of the last state, behind a final norm (spec D2).

    advance: is told the number of definitions done.
    """
    encoded = tokenizer([PREFIX + text for text in definitions], truncation=True, max_length=MAX_LENGTH)["input_ids"]
    found = np.zeros((len(definitions), model.d_model), np.float32)
    for batch in batches_of_like_length(np.array([len(ids) for ids in encoded]), BATCH_SIZE):
        ids, mask = right_padded([np.array(encoded[place]) for place in batch])
        with forward_pass(model, ids.shape), torch.inference_mode():
            states = hidden_state(model.inner(ids.to(model.device), mask.to(model.device))).float()
            weights = mask.to(states.device)[:, :, None]
            found[batch] = ((states * weights).sum(1) / weights.sum(1)).cpu().numpy()
        advance(len(batch))
    return found
