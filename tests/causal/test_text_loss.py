"""Perplexity of a text against the model's own loss, with padding and specials left out."""

import math

import numpy as np
import pytest
import torch

from src.causal.text_loss import text_loss
from src.errors import StrataError
from src.models import LanguageModel, wrap_model
from src.text import Keep, TokenSequence
from tests.fixtures.tiny_models import model_config, tiny_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return wrap_model(tiny_model("gpt2"), model_config())


def sequences(lengths: list[int]) -> list[TokenSequence]:
    random = np.random.default_rng(0)
    found = []
    for place, length in enumerate(lengths):
        roles = np.full(length, Keep.COUNTED, dtype=np.uint8)
        roles[0] = Keep.BOS
        found.append(TokenSequence(place, random.integers(4, 90, length).astype(np.int32), roles))
    return found


def test_it_is_the_models_own_loss_whatever_is_padded(model):
    texts = sequences([3, 17, 9, 30, 2])
    texts[3].roles[10] = Keep.SPECIAL
    nll = counted = 0.0
    for it in texts:
        ids = torch.from_numpy(it.token_ids.astype(np.int64))[None]
        with torch.no_grad():
            losses = -model.module(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        wanted = torch.from_numpy(it.roles[1:] == Keep.COUNTED)
        nll, counted = nll + float(losses[wanted].double().sum()), counted + int(wanted.sum())
    n_bytes = [4 * len(it.token_ids) for it in texts]
    for batch_size in (1, 5):
        found = text_loss(model, texts, n_bytes, batch_size)
        assert found.nll.value == pytest.approx(nll / counted, rel=1e-5)
        assert found.bits_per_byte.value == pytest.approx(nll / math.log(2) / sum(n_bytes), rel=1e-5)
        assert found.perplexity.value == pytest.approx(math.exp(nll / counted), rel=1e-5)
        assert found.nll.low < found.nll.value < found.nll.high
        assert (found.n_tokens, found.n_documents) == (counted, 5)


def test_nothing_to_predict_is_refused(model):
    with pytest.raises(StrataError, match="no document has a token to predict"):
        text_loss(model, sequences([1, 1]), [1, 1], 2)
