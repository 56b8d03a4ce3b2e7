"""Untrained controls at a modulator's own strengths (spec G7, BUG H-4)."""

import numpy as np
import pytest
import torch

from src.models import wrap_model
from src.modulators.controls.equal_strength import equal_strength_controls, mean_gates_on
from src.modulators.controls.field_gates import ConstantGates, constant_gates
from src.modulators.controls.known_tokens import ConstantTarget
from src.modulators.controls.shuffled_field import ShuffledField, earlier_positions
from src.modulators.field import FieldModulator, FieldShape
from src.modulators.injection import changed_inputs
from src.modulators.notebook.field import NotebookField
from src.modulators.residual import ResidualModulator
from src.modulators.training.examples import Example
from tests.fixtures.tiny_models import D_MODEL, N_VOCAB, model_config, tiny_model

LAYERS = (0, 2)
ALPHAS = (0.1, 0.35)


def logit(share):
    return torch.tensor([share]).logit().item()


def residual_modulator(match_norms=True, width=6, n_known=40):
    draws = torch.Generator().manual_seed(1)
    known = torch.zeros(N_VOCAB, dtype=torch.bool)
    known[torch.randperm(N_VOCAB, generator=draws)[:n_known]] = True
    table = torch.randn(N_VOCAB, width, generator=draws) * torch.rand(N_VOCAB, 1, generator=draws)
    projection = torch.randn(D_MODEL, width, generator=draws)
    modulator = ResidualModulator(table, projection, known, LAYERS, match_norms=match_norms)
    with torch.no_grad():
        modulator.strength.copy_(torch.tensor([logit(alpha) for alpha in ALPHAS]))
    return modulator


def field_modulator():
    shape = FieldShape(dimensions=(1, 2), width=3, alpha=0.1, null_share=0.25, null_place="random")
    field = FieldModulator(D_MODEL, LAYERS, shape, seed=5)
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=draws))
    return field


def gates(field, read):
    return torch.stack(field.gate_logits(field.features(read))).tanh()


def stream(seed=0, n_positions=50):
    draws = torch.Generator().manual_seed(seed)
    ids = torch.randint(N_VOCAB, (3, n_positions), generator=draws)
    return 3 * torch.randn(3, n_positions, D_MODEL, generator=draws), ids


def test_zero_target_shrinks_known_tokens_by_one_less_alpha_and_leaves_the_others():
    modulator = residual_modulator()
    residual, ids = stream()
    zero = equal_strength_controls(modulator, seed=0)["zero"]
    for layer, alpha in zip(LAYERS, ALPHAS, strict=True):
        expected = torch.where(modulator.known[ids, None], (1 - alpha) * residual, residual)
        torch.testing.assert_close(zero(residual, ids, layer), expected)


@pytest.mark.parametrize("match_norms", [True, False])
def test_random_targets_keep_each_tokens_length_and_lose_its_direction(match_norms):
    modulator = residual_modulator(match_norms, width=8, n_known=N_VOCAB)
    random = equal_strength_controls(modulator, seed=0)["random"]
    assert isinstance(random, ResidualModulator)
    tokens = torch.arange(N_VOCAB)
    own, drawn = modulator.target(tokens).detach(), random.target(tokens).detach()
    torch.testing.assert_close(drawn.norm(dim=1), own.norm(dim=1))
    cosine = torch.cosine_similarity(own, drawn)
    # of random directions in an 8-dimensional subspace of 16: mean 0, sd 1 / sqrt(16), over 97 tokens
    assert abs(float(cosine.mean())) < 4 / (16 * N_VOCAB) ** 0.5
    gram = torch.nn.functional.normalize(drawn) @ torch.nn.functional.normalize(drawn).T
    assert float(gram.triu(1).square().sum()) / (N_VOCAB * (N_VOCAB - 1) / 2) == pytest.approx(1 / 8, rel=0.1)


def test_random_targets_keep_the_size_of_what_is_trained():
    """Adam moves a number by its rate whatever its size: a table of other numbers would be trained at another pace."""
    modulator = residual_modulator(match_norms=True)
    with torch.no_grad():
        modulator.table.mul_(3)
        modulator.projection.mul_(0.01)
    turned = equal_strength_controls(modulator, seed=0)["random"]
    assert isinstance(turned, ResidualModulator)
    known = modulator.known
    assert torch.allclose(turned.table[known].norm(), modulator.table[known].norm())
    # as many columns, of the same length about
    assert 0.5 < float(turned.projection.detach().norm() / modulator.projection.detach().norm()) < 2


def test_random_targets_are_no_wider_than_the_stream():
    modulator = residual_modulator(match_norms=False, width=D_MODEL + 4)
    random = equal_strength_controls(modulator, seed=0)["random"]
    tokens = torch.arange(N_VOCAB)
    assert isinstance(random, ResidualModulator)
    torch.testing.assert_close(random.target(tokens).norm(dim=1), modulator.target(tokens).norm(dim=1))


def test_shuffled_targets_are_those_of_other_known_tokens():
    modulator = residual_modulator()
    shuffled = equal_strength_controls(modulator, seed=0)["shuffled"]
    assert isinstance(shuffled, ResidualModulator)
    known = modulator.known.nonzero()[:, 0]
    before, after = modulator.table[known], shuffled.table[known]
    owner = (after[:, None] == before[None]).all(-1).long().argmax(1)
    assert sorted(owner.tolist()) == list(range(len(known)))
    assert not (owner == torch.arange(len(known))).any()
    assert torch.equal(shuffled.table[~modulator.known], modulator.table[~modulator.known])
    other = equal_strength_controls(modulator, seed=1)["shuffled"]
    assert isinstance(other, ResidualModulator)
    assert not torch.equal(other.table, shuffled.table)


@pytest.mark.parametrize("match_norms", [True, False])
def test_constant_target_is_the_mean_over_known_tokens(match_norms):
    modulator = residual_modulator(match_norms)
    constant = equal_strength_controls(modulator, seed=0)["constant"]
    targets = modulator.table[modulator.known] @ modulator.projection.T
    if match_norms:
        targets = torch.nn.functional.normalize(targets)
    assert isinstance(constant, ConstantTarget)
    torch.testing.assert_close(constant.target, targets.mean(0))
    residual, ids = stream()
    changed = constant(residual, ids, 2)
    mean = targets.mean(0)
    if match_norms:
        mean = torch.nn.functional.normalize(mean, dim=0) * residual.norm(dim=-1, keepdim=True)
    expected = torch.where(modulator.known[ids, None], 0.65 * residual + 0.35 * mean, residual)
    torch.testing.assert_close(changed, expected)


def test_controls_share_no_parameter_with_the_modulator():
    for modulator in (residual_modulator(), field_modulator()):
        mine = {parameter.data_ptr() for parameter in modulator.parameters()}
        for control in equal_strength_controls(modulator, seed=0).values():
            assert not mine & {parameter.data_ptr() for parameter in control.parameters()}
            torch.testing.assert_close(control.strengths(), modulator.strengths())


def test_closed_gates_shrink_active_dimensions_by_the_product_over_experts():
    """BUG H-4: what gates that only close would do by themselves."""
    field = field_modulator()
    residual, ids = stream()
    zero = equal_strength_controls(field, seed=0)["zero"]
    for place, layer in enumerate(LAYERS):
        expected = residual.clone()
        expected[..., field.active] *= (1 - field.strengths()[place]).prod()
        assert torch.equal(zero(residual, ids, layer), expected.float())


def test_shuffled_gates_are_those_of_an_earlier_position():
    field = field_modulator()
    residual, ids = stream()
    shuffled = equal_strength_controls(field, seed=3)["shuffled"]
    assert isinstance(shuffled, ShuffledField)
    changed = shuffled(residual, ids, 2)
    source = earlier_positions(ids, torch.ones_like(ids, dtype=torch.bool), seed=3)
    for row, position in ((0, 0), (1, 17), (2, 49)):
        read = residual[row, source[row, position], field.active]
        factor = (1 + field.strengths()[1][:, None] * gates(field, read[None])[:, 0]).prod(0)
        expected = residual[row, position].clone()
        expected[field.active] *= factor
        torch.testing.assert_close(changed[row, position], expected)


def test_earlier_positions_are_uniform_and_know_nothing_of_later_tokens():
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(N_VOCAB, (4000, 12), generator=draws)
    mask = torch.ones_like(ids, dtype=torch.bool)
    source = earlier_positions(ids, mask, seed=0)
    assert bool((source <= torch.arange(12)).all())
    assert int(source.min()) == 0
    counts = torch.bincount(source[:, 11], minlength=12).double()
    assert float(((counts - 4000 / 12) ** 2 / (4000 / 12)).sum()) < 31.3  # chi-square of 11, p = 0.001
    later = ids.clone()
    later[:, 8:] = 1
    assert torch.equal(earlier_positions(later, mask, seed=0)[:, :8], source[:, :8])
    assert not torch.equal(earlier_positions(ids, mask, seed=1), source)


def test_earlier_positions_are_no_padding_on_either_side():
    ids = torch.randint(N_VOCAB, (1, 9), generator=torch.Generator().manual_seed(0))
    alone = earlier_positions(ids, torch.ones_like(ids, dtype=torch.bool), seed=0)
    pads = torch.full((1, 4), 7)
    none, some = torch.zeros(1, 4, dtype=torch.bool), torch.ones(1, 9, dtype=torch.bool)
    left = earlier_positions(torch.cat([pads, ids], 1), torch.cat([none, some], 1), seed=0)
    right = earlier_positions(torch.cat([ids, pads], 1), torch.cat([some, none], 1), seed=0)
    assert torch.equal(left[:, 4:] - 4, alone)
    assert torch.equal(right[:, :9], alone)


def test_mean_gates_are_over_tokens_without_padding():
    model = wrap_model(tiny_model("llama"), model_config())
    field = field_modulator()
    draws = np.random.default_rng(0)
    examples = [
        Example(draws.integers(3, N_VOCAB, length).astype(np.int32), np.arange(length) > 0, group)
        for group, length in enumerate((5, 9, 12))
    ]
    found = mean_gates_on(model, field, examples, batch_size=3)
    seen = {layer: [] for layer in LAYERS}

    def forward(residual, _, layer):
        seen[layer].append(gates(field, residual[0][:, field.active]))
        return FieldModulator.forward(field, residual, _, layer)

    with torch.no_grad(), changed_inputs(model, LAYERS, forward):
        for example in examples:
            model.module(input_ids=torch.from_numpy(example.input_ids)[None].long())
    expected = torch.stack([torch.cat(seen[layer], 1).mean(1) for layer in LAYERS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    constant = equal_strength_controls(field, 0, found)["constant"]
    assert isinstance(constant, ConstantGates)
    residual, ids = stream()
    factor = (1 + field.strengths()[1][:, None] * expected[1]).prod(0)
    torch.testing.assert_close(
        constant(residual, ids, 2)[..., field.active], residual[..., field.active] * factor, atol=1e-4, rtol=1e-4
    )


def test_the_notebooks_field_is_held_against_its_own_shrink():
    """BUG H-4: its gates only close, so that without these controls all that it does would pass for geometry."""
    field = NotebookField(D_MODEL, LAYERS, FieldShape(alpha=0.2), seed=0)
    with torch.no_grad():
        field.strength[0, 0], field.strength[1, 2] = 3.0, -12.0  # cut off at either bound
    residual, ids = stream()
    model = wrap_model(tiny_model("llama"), model_config())
    examples = [Example(np.arange(3, 12, dtype=np.int32), np.arange(9) > 0, 0)]
    mean = mean_gates_on(model, field, examples, batch_size=1)
    assert bool(((mean > -1) & (mean < 0)).all())
    controls = equal_strength_controls(field, 0, mean)
    assert set(controls) == {"zero", "constant"}
    n_active, alphas = field.n_active, field.strengths()
    for control in controls.values():
        torch.testing.assert_close(control.strengths(), alphas)
    for row, layer in enumerate(LAYERS):
        for name, gates in (("zero", torch.full_like(mean[row], -1)), ("constant", mean[row])):
            factor = (1 + alphas[row][:, None] * gates).prod(0)
            changed = controls[name](residual, ids, layer)
            torch.testing.assert_close(changed[..., :n_active], residual[..., :n_active] * factor)
            assert torch.equal(changed[..., n_active:], residual[..., n_active:])
    # what the gates are of which the mean is taken
    factor = torch.stack([1 + a * g for a, g in zip(alphas[1], field.gates(residual), strict=True)]).prod(0)
    torch.testing.assert_close(field(residual, ids, LAYERS[1])[..., :n_active], residual[..., :n_active] * factor)


@pytest.mark.parametrize("gate", [-1.0, 1.0])
def test_constant_gates_that_are_open_or_shut_can_still_be_trained(gate):
    field = field_modulator()
    residual, ids = stream()
    constant = constant_gates(field, torch.full((2, 2, len(field.active)), gate))
    constant(residual, ids, LAYERS[0]).square().sum().backward()
    assert constant.bias.grad is not None
    assert (constant.bias.grad[0] != 0).all()
