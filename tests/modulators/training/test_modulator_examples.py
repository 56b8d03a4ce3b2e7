"""What modulators are trained on, and the loss: against the library's own, and what a copying model gets of it."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from src.modulators.training.examples import Example, example_losses, losses_of, n_predicted, passes, text_example
from src.text import Keep, TokenSequence
from tests.fixtures.tiny_models import N_VOCAB
from tests.fixtures.tiny_modulators import wrapped

LENGTHS = [6, 9, 4]


def texts(lengths=LENGTHS, seed=0) -> list[Example]:
    draws = np.random.default_rng(seed)
    made = []
    for place, length in enumerate(lengths):
        ids = draws.integers(3, N_VOCAB, length).astype(np.int32)
        roles = np.full(length, Keep.COUNTED, np.uint8)
        roles[0], roles[-1] = Keep.BOS, Keep.SPECIAL
        made.append(text_example(TokenSequence(place, ids, roles), place))
    return made


def answers(seed=0) -> list[Example]:
    draws = np.random.default_rng(seed)
    made = []
    for place, (source, target) in enumerate([(7, 3), (4, 5), (5, 2)]):
        ids, told = (draws.permutation(np.arange(3, N_VOCAB))[:n].astype(np.int32) for n in (source, target))
        made.append(Example(ids, np.ones(target, bool), place, told))
    return made


def padded(rows: list[np.ndarray], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row.tolist(), *[value] * (longest - len(row))] for row in rows])


def test_the_loss_of_a_text_is_the_librarys():
    model, examples = wrapped("llama"), texts()
    labels = [np.where(each.predicted, each.input_ids, -100) for each in examples]
    mask = padded([np.ones(len(each.input_ids), int) for each in examples], 0)
    expected = model.module(
        input_ids=padded([each.input_ids for each in examples], 0), attention_mask=mask, labels=padded(labels, -100)
    ).loss
    sums, counts = example_losses(model, examples)
    assert counts.tolist() == [4, 7, 2]  # neither BOS nor the end
    assert n_predicted(examples) == 13
    assert float(sums.sum() / counts.sum()) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("family", ["t5_with_head", "t5_gated", "bart"])
def test_the_loss_of_an_answer_is_the_librarys_with_labels(family):
    """BUG G-9: logits of a tied T5 are scaled by d^-1/2; a head that is applied by hand misses that."""
    model, examples = wrapped(family), answers()
    mask = padded([np.ones(len(each.input_ids), int) for each in examples], 0)
    labels = padded([each.target_ids for each in examples if each.target_ids is not None], -100)
    found = model.module(input_ids=padded([each.input_ids for each in examples], 0), attention_mask=mask, labels=labels)
    sums, counts = example_losses(model, examples)
    assert float(sums.sum() / counts.sum()) == pytest.approx(float(found.loss), rel=1e-5)
    if family == "t5_with_head":
        module: Any = model.module
        head = module.get_output_embeddings().weight
        decoded = module.decoder(
            input_ids=module._shift_right(labels),
            encoder_hidden_states=found.encoder_last_hidden_state,
            encoder_attention_mask=mask,
        ).last_hidden_state
        unscaled = cross_entropy((decoded @ head.T).flatten(0, 1), labels.flatten())
        assert abs(float(unscaled) - float(found.loss)) > 0.1


class CopyingDecoder(nn.Module):
    """Says of each position the token that is given there."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.given: list[Tensor] = []

    def forward(self, input_ids: Tensor, **_: object) -> BaseModelOutputWithPastAndCrossAttentions:
        self.given.append(input_ids)
        states = self.scale * nn.functional.one_hot(input_ids, N_VOCAB).float()
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)


def test_a_decoder_that_only_copies_does_not_reach_zero_loss():
    """BUG G-8: with the unshifted target as decoder input, copying tells every token."""
    model, examples = wrapped("t5_with_head", d_model=N_VOCAB), answers()
    decoder = CopyingDecoder(1e4)
    module: Any = model.module
    module.decoder = decoder
    with torch.no_grad():
        module.shared.weight.copy_(torch.eye(N_VOCAB))
        module.lm_head.weight.copy_(torch.eye(N_VOCAB))
    sums, counts = example_losses(model, examples)
    assert float(sums.sum() / counts.sum()) > 10
    # the same decoder, shown what it is to say
    shown = [example.target_ids for example in examples if example.target_ids is not None]
    logits = model.module(input_ids=torch.ones(1, 2, dtype=torch.long), decoder_input_ids=padded(shown[:1], 0)).logits
    assert float(cross_entropy(logits[0], torch.tensor(shown[0]).long())) < 1e-3


def test_a_causal_model_that_only_copies_does_not_reach_zero_loss(monkeypatch):
    """BUG G-8, of texts: the logits at a token predict the next one."""
    model = wrapped("llama")
    monkeypatch.setattr(
        model.module,
        "forward",
        lambda input_ids, **_: SimpleNamespace(logits=100.0 * nn.functional.one_hot(input_ids, N_VOCAB).float()),
    )
    ids = np.arange(3, 12, dtype=np.int32)
    sums, counts = example_losses(model, [Example(ids, np.arange(9) > 0, 0)])
    assert float(sums / counts) == pytest.approx(100, rel=1e-3)


def test_losses_of_many_are_those_of_each_alone():
    model, examples = wrapped("llama"), texts([3, 8, 5, 8, 4])
    sums, counts = losses_of(model, examples, 2)
    for place, example in enumerate(examples):
        alone, count = example_losses(model, [example])
        assert float(sums[place]) == pytest.approx(float(alone), rel=1e-5)
        assert int(counts[place]) == int(count)
    assert not sums.requires_grad


def test_a_half_precision_models_losses_are_float32():
    model = wrapped("llama")
    model.module.bfloat16()
    sums, _ = example_losses(model, texts())
    assert sums.dtype == torch.float32
    assert math.isfinite(float(sums.sum()))


def test_passes_hold_all_examples_and_like_lengths():
    examples = texts([3, 9, 4, 9, 5])
    parts = passes(examples, 2)
    assert [[len(each.input_ids) for each in part] for part in parts] == [[9, 9], [5, 4], [3]]
    assert {id(each) for part in parts for each in part} == set(map(id, examples))
    assert passes(examples, 5) == [examples]
