"""Direct logit attribution and the residual decomposition: sums of parts against what models really give."""

import pytest
import torch

from src.errors import StrataError
from src.models.unembedding import read_head, read_unembedding
from src.scenarios.lenses.attribution import attribute, runners_up
from src.scenarios.lenses.decomposition import EMBEDDINGS, decompose
from src.scenarios.states import Rows
from tests.fixtures.read_states import read_text

FAMILIES = ["llama", "gpt2", "gpt_neox", "gemma3", "olmo2", "falcon"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_add_up_to_the_true_logit_and_to_the_lead(family):
    model, rows, logits = read_text(family)
    parts = decompose(rows, model.n_layers)
    head = read_head(model, read_unembedding(model), parts.final)
    tokens = torch.arange(len(logits)) * 7 % 97
    others = runners_up(logits, tokens)
    for instead_of, truth in (
        (None, logits.gather(1, tokens[:, None])[:, 0]),
        (others, (logits.gather(1, tokens[:, None]) - logits.gather(1, others[:, None]))[:, 0]),
    ):
        found = attribute(parts, head, logits, tokens, instead_of)
        torch.testing.assert_close(found.components.sum(0) + found.rounding + found.bias, truth, rtol=1e-4, atol=1e-5)
        assert float(found.error.max()) < 1e-5
        assert float(found.after_head.abs().max()) < 1e-5


def test_a_soft_cap_is_a_part_of_its_own():
    model, rows, logits = read_text("gemma2", final_logit_softcapping=3.0)
    parts = decompose(rows, model.n_layers)
    head = read_head(model, read_unembedding(model), parts.final)
    tokens = logits.argmax(-1)
    found = attribute(parts, head, logits, tokens)
    before = found.components.sum(0) + found.rounding + found.bias
    own = logits.gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(3 * torch.tanh(before / 3), own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.after_head, own - before, rtol=1e-4, atol=1e-5)
    assert float(found.after_head.abs().max()) > 0.1


def test_the_bias_of_a_layer_norm_and_of_the_head_is_told_apart_from_components():
    model, rows, logits = read_text("gpt2")
    parts = decompose(rows, model.n_layers)
    head = read_head(model, read_unembedding(model), parts.final)
    tokens = logits.argmax(-1)
    norm = model.module.transformer.ln_f
    expected = model.module.lm_head.weight[tokens] @ norm.bias
    torch.testing.assert_close(attribute(parts, head, logits, tokens).bias, expected, rtol=1e-4, atol=1e-5)
    deviation = parts.final.std(-1, correction=0)
    torch.testing.assert_close(head.divisor, deviation, rtol=1e-3, atol=1e-4)


def test_a_component_that_writes_nothing_adds_nothing_and_what_it_writes_is_linear():
    model, rows, logits = read_text("llama")
    parts = decompose(rows, model.n_layers)
    head = read_head(model, read_unembedding(model), parts.final)
    tokens = logits.argmax(-1)
    once = attribute(parts, head, logits, tokens).components[3]
    doubled = dict(rows.arrays) | {"attn_out": rows.arrays["attn_out"] * torch.tensor([0.0, 2.0, 1.0])[:, None, None]}
    found = attribute(decompose(Rows(rows.layers, doubled), 3), head, logits, tokens).components
    assert not bool(found[1].any())
    torch.testing.assert_close(found[3], 2 * once)


def test_the_runner_up_is_the_likeliest_of_the_others():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert runners_up(logits, torch.tensor([0, 2])).tolist() == [1, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_blocks_wrote_makes_the_final_state_to_the_last_share(family):
    model, rows, _ = read_text(family)
    parts = decompose(rows, model.n_layers)
    assert parts.holds
    assert float(parts.error.max()) < 1e-6
    assert parts.names[0] == (EMBEDDINGS, None)
    assert parts.names[-1] == ("mlp_out", model.n_layers - 1)
    torch.testing.assert_close(parts.shares.sum(0), torch.ones(len(rows)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.cosines * parts.norms / parts.final.norm(dim=-1), parts.shares)
    torch.testing.assert_close(parts.components[0], rows.get("resid_pre")[0])


def test_states_that_do_not_add_up_are_said_so():
    _, rows, _ = read_text("llama")
    normed = dict(rows.arrays) | {"resid_post": torch.nn.functional.layer_norm(rows.arrays["resid_post"], (16,))}
    parts = decompose(Rows(rows.layers, normed), 3)
    assert not parts.holds
    torch.testing.assert_close(parts.rest, parts.final - parts.components.sum(0))


def test_planted_shares_have_their_closed_form():
    zero, e = torch.zeros(1, 1, 4), torch.eye(4)
    arrays = {
        "resid_pre": 3 * e[0].view(1, 1, 4),
        "attn_out": 4 * e[1].view(1, 1, 4),
        "mlp_out": zero,
        "resid_post": (3 * e[0] + 4 * e[1]).view(1, 1, 4),
    }
    parts = decompose(Rows((0,), arrays), 1)
    assert parts.norms[:, 0].tolist() == [3, 4, 0]
    assert parts.shares[:, 0].tolist() == pytest.approx([9 / 25, 16 / 25, 0])
    assert parts.cosines[:, 0].tolist() == pytest.approx([0.6, 0.8, 0])


def test_gaps_are_refused_with_the_remedy():
    _, rows, _ = read_text("llama")
    with pytest.raises(StrataError, match=r"layers 0, 1, 2 of 4 were captured.*capture.layers=all"):
        decompose(rows, 4)
    without = Rows(rows.layers, {name: rows.arrays[name] for name in ("resid_pre", "resid_post")})
    with pytest.raises(StrataError, match=r"attn_out, mlp_out was not captured.*capture.hidden_states=true"):
        decompose(without, 3)
