"""The logit lens against the model's own logits, scipy's divergences, and planted distributions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import entropy

from src.models import VocabularyHead
from src.scenarios.lenses.logit_lens import agreement, divergences, entropy_of, rank_of, read_lens, settled_layer
from tests.fixtures.read_states import read_text

LOGITS = arrays.arrays(np.float64, (2, 7), elements=st.floats(-20, 20))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "olmo2"])
def test_at_the_last_layer_the_lens_reads_what_the_model_says(family):
    model, rows, logits = read_text(family)
    targets = logits.argmax(-1)
    found = read_lens(VocabularyHead(model), rows.get("resid_post"), logits, targets, 3, rows_at_once=24)
    own = logits.log_softmax(-1).topk(3)
    assert torch.equal(found.top_ids[-1], own.indices)
    torch.testing.assert_close(found.top_logprobs[-1], own.values, rtol=1e-4, atol=1e-5)
    for divergence in (found.kl_layer_final, found.kl_final_layer, found.js):
        assert float(divergence[-1].abs().max()) < 1e-5
        assert float(divergence[0].min()) > 1e-3
    assert found.target_rank[-1].tolist() == [1] * len(logits)


def test_the_soft_cap_of_gemma2_is_the_models_own():
    model, rows, logits = read_text("gemma2", final_logit_softcapping=0.5)
    found = read_lens(VocabularyHead(model), rows.get("resid_post"), logits, logits.argmax(-1), 1)
    assert float(found.kl_final_layer[-1].max()) < 1e-6
    # a cap of 0.5 keeps all logits within 1 of each other: every layer is nearly uniform
    assert float((math.log(97) - found.entropy).max()) < 0.5**2
    capped = 0.5 * torch.tanh(read_text("gemma2", final_logit_softcapping=None)[2] / 0.5)
    torch.testing.assert_close(logits, capped, rtol=1e-4, atol=1e-5)


def test_an_early_layer_is_read_through_norm_and_head():
    model, rows, logits = read_text("llama")
    state = rows.get("resid_post")[0]
    expected = model.module.lm_head(model.module.model.norm(state)).log_softmax(-1)
    ids = torch.arange(len(state)) + 5
    found = read_lens(VocabularyHead(model), rows.get("resid_post"), logits, ids, 97, rows_at_once=6)
    torch.testing.assert_close(found.target_logprob[0], expected[torch.arange(len(ids)), ids], rtol=1e-5, atol=1e-5)
    ranks = [1 + int((row > row[token]).sum()) for row, token in zip(expected, ids, strict=True)]
    assert found.target_rank[0].tolist() == ranks
    final = logits.log_softmax(-1).double().exp().numpy()
    kl = [entropy(p, q) for p, q in zip(expected.double().exp().detach().numpy(), final, strict=True)]
    torch.testing.assert_close(found.kl_layer_final[0].double(), torch.tensor(kl).double(), rtol=1e-4, atol=1e-5)


def test_states_go_through_their_map_first():
    model, rows, logits = read_text("llama")
    states = rows.get("resid_post")
    to_last = {0: lambda x: states[-1][: len(x)], 1: lambda x: x}
    found = read_lens(VocabularyHead(model), states, logits, logits.argmax(-1), 1, to_last, rows_at_once=1000)
    plain = read_lens(VocabularyHead(model), states, logits, logits.argmax(-1), 1)
    assert float(found.kl_layer_final[0].max()) < 1e-6
    assert torch.equal(found.kl_layer_final[1], plain.kl_layer_final[1])


def test_chunks_do_not_change_what_is_read_and_are_as_small_as_asked():
    states, sizes = torch.randn(3, 11, 5), []

    def head(rows):
        sizes.append(len(rows))
        return rows @ torch.arange(45.0).reshape(5, 9).sin()

    logits, targets = head(states[-1]), torch.arange(11) % 9
    whole = read_lens(head, states, logits, targets, 2, rows_at_once=10**6)
    sizes.clear()
    parts = read_lens(head, states, logits, targets, 2, rows_at_once=12)
    assert max(sizes) == 2
    torch.testing.assert_close(parts.js, whole.js)
    assert torch.equal(parts.top_ids, whole.top_ids)


@given(LOGITS)
def test_divergences_and_entropy_are_scipys(logits):
    logprobs = torch.tensor(logits).log_softmax(-1)
    p, q = logprobs.exp().numpy()
    there, back, js = (float(value) for value in divergences(*logprobs))
    assert there == pytest.approx(entropy(p, q), abs=1e-9)
    assert back == pytest.approx(entropy(q, p), abs=1e-9)
    mixture = (p + q) / 2
    assert js == pytest.approx((entropy(p, mixture) + entropy(q, mixture)) / 2, abs=1e-9)
    assert float(entropy_of(logprobs[0])) == pytest.approx(entropy(p), abs=1e-9)


def test_tokens_that_are_ruled_out_count_for_nothing_or_for_everything():
    p = torch.tensor([0.0, math.log(0.5), math.log(0.5)])
    p[0] = -torch.inf
    q = torch.full((3,), -math.log(3))
    there, back, js = divergences(p, q)
    assert float(there) == pytest.approx(math.log(1.5), abs=1e-6)
    assert float(back) == math.inf
    assert 0 < float(js) < math.log(2)
    assert float(entropy_of(p)) == pytest.approx(math.log(2), abs=1e-6)
    apart = divergences(torch.tensor([0.0, -torch.inf]), torch.tensor([-torch.inf, 0.0]))
    assert float(apart[2]) == pytest.approx(math.log(2))


def test_ranks_begin_with_1_and_ties_do_no_harm():
    values = torch.tensor([[3.0, 1.0, 3.0], [0.0, 1.0, 2.0], [math.nan, 0.0, 0.0]])
    assert rank_of(values, torch.tensor([2, 0, 0])).tolist() == [1, 3, 0]


def test_agreement_and_the_layer_where_a_token_settles():
    steer = torch.tensor([[[9.0, 0], [0, 9]], [[0, 9], [0, 9]], [[9, 0], [0, 9]], [[9, 0], [9, 0]]])
    final, targets = steer[-1], torch.tensor([0, 1])
    found = read_lens(lambda rows: rows, steer, final, targets, 1)
    assert agreement(found, final.argmax(-1)).tolist() == [0.5, 0.0, 0.5, 1.0]
    # row 0 strays at the second layer; row 1's target is not what comes out
    assert settled_layer(found, [0, 4, 5, 7]).tolist() == [5, -1]
