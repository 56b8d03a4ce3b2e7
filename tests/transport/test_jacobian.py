"""Mean Jacobians against planted linear blocks, and against autograd token by token."""

import numpy as np
import pytest
import torch
from torch import nn

from src.activations.moments import Moments
from src.activations.sampling import TokenSample
from src.hook_points import HookPoint
from src.models import wrap_model
from src.models.token_graph import TokenGraph
from src.transport.jacobian import fit_jacobian, gradients_to_take, mean_jacobians
from src.transport.pairs import LayerPair
from tests.fixtures.tiny_models import D_MODEL, N_VOCAB, model_config, tiny_model

PAIRS = [LayerPair(0, 1), LayerPair(0, 2), LayerPair(1, 1)]
DOCUMENT = np.array([1, 1, 1, 4, 5, 5, 7, 8, 8, 8, 8])


@pytest.fixture(scope="module")
def sample():
    draws = np.random.default_rng(0)
    lengths = draws.integers(3, 9, len(DOCUMENT))
    sequences = [draws.integers(3, N_VOCAB, length).astype(np.int32) for length in lengths]
    return TokenSample(sequences, draws.integers(1, lengths), DOCUMENT)


def each_jacobian(module, sample, pair):
    """[token, d_in, d_out], one token at a time."""
    graph, found = TokenGraph(wrap_model(module, model_config())), []
    for sequence, position in zip(sample.sequences, sample.position, strict=True):
        ids = torch.from_numpy(sequence).long()[None]
        points = [pair.source("resid_post"), pair.target("resid_post")]
        states = graph.states(ids, torch.ones_like(ids), torch.tensor([position]), points)
        columns = [
            torch.autograd.grad(states[points[1]][0, output], states[points[0]], retain_graph=True)[0][0]
            for output in range(D_MODEL)
        ]
        found.append(torch.stack(columns, 1).double())
    return torch.stack(found)


@pytest.fixture(scope="module")
def one_by_one(sample):
    return {pair: each_jacobian(tiny_model("llama"), sample, pair).numpy() for pair in PAIRS}


def linear_blocks():
    """A GPT-2 whose blocks compute x + (x A + a) B, and nothing else; and I + A B of each."""
    module = tiny_model("gpt2", activation_function="linear")
    maps = []
    for block in module.transformer.h:
        block.ln_2 = nn.Identity()
        nn.init.zeros_(block.attn.c_proj.weight)
        maps.append(torch.eye(D_MODEL) + (block.mlp.c_fc.weight @ block.mlp.c_proj.weight).detach())
    return module, [each.double() for each in maps]


def test_linear_blocks_give_their_matrices_and_no_error(sample):
    module, maps = linear_blocks()
    found = mean_jacobians(wrap_model(module, model_config()), PAIRS, "resid_post", sample, batch_size=4)
    expected = {PAIRS[0]: maps[1], PAIRS[1]: maps[1] @ maps[2], PAIRS[2]: maps[2]}
    for pair, jacobian in found.items():
        scale = float(expected[pair].norm())
        torch.testing.assert_close(jacobian.weight, expected[pair], atol=1e-6 * scale, rtol=1e-5)
        assert jacobian.relative_standard_error == pytest.approx(0, abs=1e-6)
        assert jacobian.half_split_cosine == pytest.approx(1, abs=1e-6)
        assert (jacobian.n_tokens, jacobian.n_documents) == (11, 5)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 64, None])
def test_means_and_their_errors_whatever_the_batch(sample, one_by_one, batch_size):
    """Batches of 3 and 4 part documents; the error is that of a ratio estimator, from whole documents."""
    done: list[int] = []
    model = wrap_model(tiny_model("llama"), model_config())
    found = mean_jacobians(model, PAIRS, "resid_post", sample, batch_size, done.append)
    assert sum(done) == gradients_to_take(PAIRS, 11, D_MODEL) == 11 * 2 * D_MODEL
    for pair, jacobian in found.items():
        each = one_by_one[pair]
        mean = each.mean(0)
        np.testing.assert_allclose(jacobian.weight.numpy(), mean, atol=2e-5)
        residuals = np.stack([(each - mean)[document == DOCUMENT].sum(0) for document in np.unique(DOCUMENT)])
        error = np.sqrt(5 / 4 * (residuals**2).sum()) / 11
        assert jacobian.relative_standard_error == pytest.approx(error / np.linalg.norm(mean), rel=1e-4)
        # documents 1, 4 and 5 hold the first 6 of 11 tokens
        one, other = (each[half].mean(0) - np.eye(D_MODEL) for half in (slice(6), slice(6, None)))
        cosine = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
        assert jacobian.half_split_cosine == pytest.approx(cosine, rel=1e-4)


def test_the_mean_over_two_blocks_is_not_the_product_of_means(sample):
    found = mean_jacobians(wrap_model(tiny_model("llama"), model_config()), PAIRS, "resid_post", sample)
    product = found[PAIRS[0]].weight @ found[LayerPair(1, 1)].weight
    difference = float((product - found[PAIRS[1]].weight).norm() / found[PAIRS[1]].weight.norm())
    assert difference > 0.01


def test_the_standard_error_tells_how_samples_differ():
    """Over samples of independent documents, the mean square of the errors is that of the deviations."""
    module = tiny_model("gpt2")
    model = wrap_model(module, model_config())
    draws = np.random.default_rng(1)
    pair, means, errors = LayerPair(1, 1), [], []
    for _ in range(40):
        sequences = [draws.integers(3, N_VOCAB, 6).astype(np.int32) for _ in range(12)]
        drawn = TokenSample(sequences, draws.integers(1, 6, 12), np.arange(12))
        jacobian = mean_jacobians(model, [pair], "resid_post", drawn)[pair]
        assert jacobian.relative_standard_error is not None
        means.append(jacobian.weight)
        errors.append((jacobian.relative_standard_error * float(jacobian.weight.norm())) ** 2)
    true_variance = float(torch.stack(means).var(0).sum())
    assert np.mean(errors) == pytest.approx(true_variance, rel=0.25)


def test_one_document_has_no_error(sample):
    alone = TokenSample(sample.sequences, sample.position, np.zeros(len(DOCUMENT), int))
    jacobian = mean_jacobians(wrap_model(tiny_model("gpt2"), model_config()), PAIRS[:1], "attn_out", alone)[PAIRS[0]]
    assert (jacobian.relative_standard_error, jacobian.half_split_cosine) == (None, None)


def test_the_bias_maps_the_means_of_the_training_rows_onto_each_other(sample):
    source, target = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
    draws = torch.Generator().manual_seed(0)
    rows = {point: torch.randn(60, D_MODEL, generator=draws).double() + 3 for point in (source, target)}
    group = torch.arange(60) % 3
    moments = Moments.empty([(source, source), (source, target)], dict.fromkeys(rows, D_MODEL), 3)
    moments.update(rows, group)
    jacobian = mean_jacobians(wrap_model(tiny_model("gpt2"), model_config()), PAIRS[:1], "resid_post", sample)[PAIRS[0]]
    fit = fit_jacobian(moments, source, target, [0, 1], jacobian)
    train = group < 2
    mean = rows[source][train].mean(0)
    torch.testing.assert_close(mean @ fit.weight + fit.bias, rows[target][train].mean(0))
    assert (fit.alpha, fit.rank) == (None, D_MODEL)
    assert fit.details["n_tokens"] == 11
