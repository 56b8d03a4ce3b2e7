"""What controls begin with, and that all of them can be trained, saved and loaded."""

import pytest
import torch

from src.errors import StrataError
from src.models import wrap_model
from src.modulators.adapters import LoraAdapters
from src.modulators.controls.field_gates import RandomFeatureGates
from src.modulators.controls.known_tokens import TokenScaling
from src.modulators.controls.shuffled_field import ShuffledField
from src.modulators.controls.trained import trained_control
from src.modulators.field import FieldModulator, FieldShape
from src.modulators.modulator import Modulator
from src.modulators.residual import ResidualModulator
from src.modulators.saving import load_modulator, save_modulator
from tests.fixtures.tiny_models import D_MODEL, N_VOCAB, model_config, ragged_batch, tiny_model

LAYERS = (0, 2)
NAMES = ("zero", "random", "shuffled", "constant", "shrink", "lora")
KINDS = ("residual", "field")


@pytest.fixture(scope="module")
def model():
    return wrap_model(tiny_model("llama"), model_config())


def field_modulator() -> FieldModulator:
    shape = FieldShape(dimensions=(1, 2), width=3, alpha=0.1, null_share=0.25, null_place="random")
    return FieldModulator(D_MODEL, LAYERS, shape, seed=5)


def residual_modulator(train_table=True) -> ResidualModulator:
    draws = torch.Generator().manual_seed(0)
    known = torch.rand(N_VOCAB, generator=draws) < 0.6
    table, projection = torch.randn(N_VOCAB, 4, generator=draws), torch.randn(D_MODEL, 4, generator=draws)
    return ResidualModulator(table, projection, known, LAYERS, alpha=0.1, train_table=train_table)


def modulator_of(kind) -> Modulator:
    return field_modulator() if kind == "field" else residual_modulator()


def batch_loss(model):
    ids, mask = ragged_batch([9, 6])
    logits = model.module(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits[mask[:, 1:] > 0], ids[:, 1:][mask[:, 1:] > 0])


def jolted(control):
    """Moved off its beginning, where some gradients are 0."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in control.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))
    return control


def moved_field() -> FieldModulator:
    field = field_modulator()
    jolted(field)
    return field


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_everything_that_is_trained_gets_a_gradient_and_the_model_none(model, kind, name):
    control = jolted(trained_control(name, modulator_of(kind), model, seed=0))
    with control.attached(model):
        batch_loss(model).backward()
    for parameter in control.parameters():
        has_one = parameter.grad is not None and bool(parameter.grad.any())
        assert has_one == parameter.requires_grad
    assert all(parameter.grad is None for parameter in model.module.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_to_the_bit(model, kind, name, tmp_path):
    control = jolted(trained_control(name, modulator_of(kind), model, seed=0))
    save_modulator(tmp_path, control)
    loaded = load_modulator(tmp_path)
    assert type(loaded) is type(control)
    assert loaded.n_trained == control.n_trained
    with torch.no_grad():
        with control.attached(model):
            expected = batch_loss(model)
        with loaded.attached(model):
            assert torch.equal(batch_loss(model), expected)


def test_zero_and_shrink_train_strengths_alone(model):
    """A free factor may exceed 1, which no strength of a zero target can bring about."""
    for kind, n_strengths in (("residual", 2), ("field", 4)):
        zero = trained_control("zero", modulator_of(kind), model, seed=0)
        shrink = trained_control("shrink", modulator_of(kind), model, seed=0)
        assert (zero.n_trained, shrink.n_trained) == (n_strengths, 2)
        assert {zero.role(name) for name, it in zero.named_parameters() if it.requires_grad} == {"strength"}
        assert shrink.role("departure") == "weights"
    residual, ids = torch.randn(1, 30, D_MODEL), torch.arange(30)[None]
    modulator = residual_modulator()
    shrink = trained_control("shrink", modulator, model, seed=0)
    assert isinstance(shrink, TokenScaling)
    assert torch.equal(shrink(residual, ids, 2), residual)
    with torch.no_grad():
        shrink.departure[1] = 0.5
    expected = torch.where(modulator.known[ids, None], 1.5 * residual, residual)
    torch.testing.assert_close(shrink(residual, ids, 2), expected)


def test_field_shrink_leaves_null_dimensions_to_the_bit(model):
    field = field_modulator()
    null = torch.ones(D_MODEL, dtype=torch.bool)
    null[field.active] = False
    residual, ids = torch.randn(2, 7, D_MODEL), torch.zeros(2, 7, dtype=torch.long)
    for name in ("zero", "random", "shuffled", "constant", "shrink"):
        changed = jolted(trained_control(name, field, model, seed=0))(residual, ids, 0).detach()
        assert torch.equal(changed[..., null], residual[..., null])
        assert float((changed - residual).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["random", "shuffled", "constant"])
def test_field_controls_change_nothing_at_the_start(model, name):
    control = trained_control(name, field_modulator(), model, seed=0)
    residual, ids = torch.randn(2, 7, D_MODEL), torch.zeros(2, 7, dtype=torch.long)
    assert torch.equal(control(residual, ids, 2), residual)


@pytest.mark.parametrize("train_table", [True, False])
def test_random_and_shuffled_train_what_the_modulator_trains(model, train_table):
    modulator = residual_modulator(train_table)
    own = {name: it.shape for name, it in modulator.named_parameters() if it.requires_grad}
    for name in ("random", "shuffled"):
        control = trained_control(name, modulator, model, seed=0)
        assert {name: it.shape for name, it in control.named_parameters() if it.requires_grad} == own
        assert control.n_trained == modulator.n_trained


def test_random_targets_are_not_the_numbers_that_a_random_beginning_drew_from_the_same_seed(model):
    draws = torch.Generator().manual_seed(3)
    table = torch.randn(N_VOCAB, 4, generator=draws)
    modulator = ResidualModulator(table, torch.eye(D_MODEL, 4), torch.ones(N_VOCAB, dtype=torch.bool), LAYERS)
    random = trained_control("random", modulator, model, seed=3)
    assert isinstance(random, ResidualModulator)
    tokens = torch.arange(N_VOCAB)
    cosine = torch.cosine_similarity(modulator.target(tokens), random.target(tokens)).detach()
    assert abs(float(cosine.mean())) < 4 / (4 * N_VOCAB) ** 0.5


def test_random_features_are_as_many_as_simplices_have_and_saturate_nowhere(model):
    field = field_modulator()
    control = trained_control("random", field, model, seed=0)
    assert isinstance(control, RandomFeatureGates)
    seen = field.features(torch.randn(3, len(field.active)))
    assert control.n_features == tuple(len(features) for features in seen)
    with torch.no_grad():
        control.weight.normal_()
    small = torch.randn(500, len(field.active))
    # the stream grows a thousandfold over layers of real models
    for of_small, of_large in zip(control.logits(small, 0), control.logits(1000 * small, 0), strict=True):
        torch.testing.assert_close(of_small, of_large)
    inner = small / small.square().mean(-1, keepdim=True).sqrt() @ control.features.T
    assert float(inner.square().mean()) == pytest.approx(1, rel=0.4)


def test_vectors_of_unknown_tokens_do_not_count_as_trained():
    modulator = residual_modulator()
    n_known = int(modulator.known.sum())
    assert modulator.n_trained == n_known * 4 + D_MODEL * 4 + 2
    assert residual_modulator(train_table=False).n_trained == D_MODEL * 4 + 2


@pytest.mark.parametrize("kind", KINDS)
def test_lora_has_nearly_as_many_parameters_as_the_modulator(model, kind):
    modulator = modulator_of(kind)
    lora = trained_control("lora", modulator, model, seed=0)
    assert isinstance(lora, LoraAdapters)
    assert abs(lora.n_trained - modulator.n_trained) <= 16
    assert {int(it.path.split(".")[2]) for it in lora.adapted} <= set(LAYERS)


def test_shuffled_gates_do_not_depend_on_padding(model):
    control = ShuffledField.of(moved_field(), 3)
    ids = torch.randint(3, N_VOCAB, (1, 8), generator=torch.Generator().manual_seed(0))
    left = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], 1)
    mask = (torch.arange(12) >= 4).long()[None]
    with torch.no_grad(), control.attached(model):
        alone = model.module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        positions = (torch.arange(12)[None] - 4).clamp_min(0)
        padded = model.module(input_ids=left, attention_mask=mask, position_ids=positions).logits
        moved = model.module(input_ids=left, position_ids=positions).logits
    torch.testing.assert_close(padded[:, 4:], alone, atol=1e-4, rtol=1e-4)
    assert float((moved[:, 4:] - alone).abs().max()) > 1e-3


def test_shuffled_gates_know_nothing_of_later_tokens(model):
    control = ShuffledField.of(moved_field(), 3)
    ids = torch.randint(3, N_VOCAB, (1, 10), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, 6:] = 5
    with torch.no_grad(), control.attached(model):
        assert torch.equal(model.module(input_ids=ids).logits[:, :6], model.module(input_ids=other).logits[:, :6])


def test_shuffled_gates_refuse_cached_generation(model):
    control = ShuffledField.of(field_modulator(), 3)
    ids = torch.randint(3, N_VOCAB, (1, 4), generator=torch.Generator().manual_seed(0))
    keys = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    with control.attached(model):
        with pytest.raises(StrataError, match="use_cache=False"):
            model.module.generate(ids, attention_mask=torch.ones_like(ids), **keys)
        generated = model.module.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **keys)
    assert generated.shape == (1, 7)
