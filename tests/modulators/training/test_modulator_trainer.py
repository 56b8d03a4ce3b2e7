"""Steps of training: AdamW's own, whatever the passes are; states to go on from; what is never trained."""

import math

import pytest
import torch

from src.errors import StrataError
from src.modulators.training.examples import example_losses, passes
from src.modulators.training.trainer import ModulatorTraining, TrainingSettings, batch_order, step_losses
from tests.fixtures.tiny_modulators import field_modulator, residual_modulator, wrapped
from tests.modulators.training.test_modulator_examples import texts

EXAMPLES = texts([6, 9, 4, 7, 8, 5])
SETTINGS = TrainingSettings(n_steps=8, warm_up=0.3)


def summands(model, modulator, examples=EXAMPLES, per_pass=6):
    return step_losses(model, modulator, examples, per_pass)


def train(model, training, steps, **keys):
    with training.modulator.attached(model):
        return [training.train(summands(model, training.modulator, **keys)) for _ in range(steps)]


def values(modulator):
    return {name: value.clone() for name, value in modulator.state_dict().items()}


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_a_step_is_adamws_with_the_rate_of_each_role():
    model = wrapped("llama")
    settings = TrainingSettings(
        n_steps=4, lr=0.01, strength_lr=5, geometry_lr=0.5, weight_decay=0.2, warm_up=0.5, clip=1e9
    )
    modulator, twin = field_modulator(model), field_modulator(model)
    factors = {"strength": (5, 0.0), "geometry": (0.5, 0.2), "weights": (1, 0.2)}
    parameters = dict(twin.named_parameters())
    groups = [
        {"params": [p], "lr": 0.01 * factors[twin.role(n)][0], "weight_decay": factors[twin.role(n)][1]}
        for n, p in parameters.items()
    ]
    optimiser = torch.optim.AdamW(groups)
    full = [group["lr"] for group in optimiser.param_groups]
    training = ModulatorTraining(modulator, settings)
    for factor in (0.5, 1.0):
        train(model, training, 1)
        for group, rate in zip(optimiser.param_groups, full, strict=True):
            group["lr"] = rate * factor
        optimiser.zero_grad()
        with twin.attached(model):
            sums, counts = example_losses(model, EXAMPLES)
            (sums.sum() / counts.sum()).backward()
        optimiser.step()
    for name, value in modulator.named_parameters():
        torch.testing.assert_close(value, parameters[name], rtol=1e-6, atol=1e-7, msg=name)
    assert training.reach == pytest.approx(0.01 * 5 * 1.5)


def test_training_lowers_the_loss_and_strengths_stay_within_reach():
    """BUG G-11: a strength ends about as far from where it began as its rates sum to, at most."""
    model = wrapped("llama")
    training = ModulatorTraining(residual_modulator(model, alpha=0.05), TrainingSettings(40, lr=0.02, strength_lr=3))
    strength = training.modulator.get_parameter("strength")
    start = strength.detach().clone()
    losses = train(model, training, 40)
    assert losses[-1] < losses[0] - 0.1
    moved = (strength.detach() - start).abs().max()
    assert 0.05 < float(moved) <= 1.2 * training.reach


@pytest.mark.parametrize("clip", [1e-3, 1e9])
def test_a_long_gradient_is_cut_to_the_clip_and_keeps_its_direction(clip):
    model = wrapped("llama")
    modulator = residual_modulator(model)
    with modulator.attached(model):
        whole = torch.autograd.grad(next(summands(model, modulator)), list(modulator.parameters()))
    training = ModulatorTraining(modulator, TrainingSettings(4, clip=clip))
    train(model, training, 1)
    length = float(torch.cat([part.flatten() for part in whole]).norm())
    assert 1e-2 < length < 1e9
    for parameter, part in zip(modulator.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, part * min(1, clip / length), rtol=1e-3, atol=1e-9)


def test_running_means_are_over_every_pass_of_a_step_without_its_padding():
    """Before layer 0 the states are embeddings, which need no pass."""
    model = wrapped("llama")
    chosen = [EXAMPLES[1], EXAMPLES[2]]
    apart, together = field_modulator(model), field_modulator(model)
    volumes = []
    with torch.no_grad():
        for part in passes(chosen, 1):
            ids = torch.from_numpy(part[0].input_ids).long()[None]
            volumes.append(apart.features(apart.read(model.embedding[ids], ids))[2][-1])
    assert sorted(map(len, volumes)) == [4, 9]
    with apart.attached(model):
        torch.stack(list(step_losses(model, apart, chosen, 1))).sum().backward()
    with together.attached(model):
        next(step_losses(model, together, chosen, 2)).backward()
    first, second = (float(each.mean()) for each in volumes)
    assert float(apart.health.values()[0, 2, 0]) == pytest.approx((0.99 * first + second) / 1.99, rel=1e-5)
    assert float(together.health.values()[0, 2, 0]) == pytest.approx(float(torch.cat(volumes).mean()), rel=1e-5)


def test_strengths_do_not_decay():
    """BUG G-11: decay alone takes a logit towards 0, that is alpha towards a half."""
    model = wrapped("llama")
    modulator = residual_modulator(model, alpha=0.01, unknown=range(97))  # nothing is injected: no gradient
    before = values(modulator)
    train(model, ModulatorTraining(modulator, TrainingSettings(5, weight_decay=0.5)), 5)
    assert torch.equal(modulator.strength, before["strength"])
    assert not torch.equal(modulator.projection, before["projection"])


def test_the_model_gets_no_gradients_and_stays_as_it_is():
    model = wrapped("llama")
    before = values(model.module)
    train(model, ModulatorTraining(residual_modulator(model), SETTINGS), 3)
    assert same(before, values(model.module))
    assert all(weight.grad is None for weight in model.module.parameters())


def test_several_passes_make_the_step_of_one():
    model = wrapped("llama")
    whole, parts = (ModulatorTraining(residual_modulator(model), SETTINGS) for _ in range(2))
    together, apart = train(model, whole, 3), train(model, parts, 3, per_pass=2)
    assert together == pytest.approx(apart, rel=1e-5)
    for name, value in whole.modulator.named_parameters():
        torch.testing.assert_close(value, parts.modulator.get_parameter(name), rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("make", [residual_modulator, field_modulator])
def test_training_goes_on_to_the_same_bits(make, tmp_path):
    model = wrapped("llama")
    through = ModulatorTraining(make(model), SETTINGS)
    train(model, through, 3)
    through.keep_as_best()
    best = values(through.modulator)
    train(model, through, 2)
    through.save_state(tmp_path)
    resumed = ModulatorTraining(make(model), SETTINGS)
    resumed.load_state(tmp_path, 5)
    assert resumed.reach == through.reach
    assert train(model, through, 3) == train(model, resumed, 3)
    assert same(values(through.modulator), values(resumed.modulator))
    assert not same(best, values(resumed.modulator))
    resumed.restore_best()
    assert same(best, values(resumed.modulator))


def test_float16_gradients_are_scaled_and_the_scale_is_gone_on_from(tmp_path):
    model = wrapped("llama")
    model.module.half()
    plain, scaled = (ModulatorTraining(residual_modulator(model), SETTINGS, half=half) for half in (False, True))
    # a loss so small that its gradients are zero in float16, were it not for the scale
    with plain.modulator.attached(model):
        plain.train(1e-6 * each for each in summands(model, plain.modulator))
    with scaled.modulator.attached(model):
        scaled.train(1e-6 * each for each in summands(model, scaled.modulator))
    read = sorted({int(token) for example in EXAMPLES for token in example.input_ids[:-2]})
    gradients = [training.modulator.get_parameter("table").grad for training in (plain, scaled)]
    lost = [int((gradient[read] == 0).sum()) for gradient in gradients if gradient is not None]
    assert lost[0] > 20
    assert lost[1] == 0
    assert all(parameter.dtype == torch.float32 for parameter in scaled.trained)
    scaled.keep_as_best()
    scaled.save_state(tmp_path)
    resumed = ModulatorTraining(residual_modulator(model), SETTINGS, half=True)
    resumed.load_state(tmp_path, 1)
    assert train(model, scaled, 2) == train(model, resumed, 2)
    assert same(values(scaled.modulator), values(resumed.modulator))


def test_a_step_that_overflows_in_float16_is_left_out():
    model = wrapped("llama")
    model.module.half()
    training = ModulatorTraining(residual_modulator(model), SETTINGS, half=True)
    before = values(training.modulator)
    with training.modulator.attached(model):
        training.train(1e6 * each for each in summands(model, training.modulator))
    assert same(before, values(training.modulator))
    with training.modulator.attached(model):
        for _ in range(6):
            training.train(summands(model, training.modulator))
    assert not same(before, values(training.modulator))


def test_a_loss_or_gradient_that_is_not_finite_is_told():
    model = wrapped("llama")
    training = ModulatorTraining(residual_modulator(model), SETTINGS)
    with training.modulator.attached(model):
        with pytest.raises(StrataError, match=r"^the loss at step 1 is nan: try a smaller training\.lr"):
            training.train(math.nan * each for each in summands(model, training.modulator))
        with pytest.raises(StrataError, match=r"but its gradient has the norm (inf|nan)"):
            training.train(
                (each - each.detach()) * 1e38 * 1e38 + each.detach() for each in summands(model, training.modulator)
            )


def test_another_modulators_checkpoint_is_refused(tmp_path):
    model = wrapped("llama")
    training = ModulatorTraining(residual_modulator(model), SETTINGS)
    train(model, training, 1)
    training.keep_as_best()
    training.save_state(tmp_path)
    with pytest.raises(StrataError, match="holds another modulator's training"):
        ModulatorTraining(field_modulator(model), SETTINGS).load_state(tmp_path, 1)


def test_every_epoch_has_all_examples_in_an_order_of_its_own():
    epochs = [[batch_order(10, 3, 3 * epoch + step, 0) for step in range(3)] for epoch in range(2)]
    for epoch in epochs:
        assert len({row for batch in epoch for row in batch}) == 9
    assert epochs[0] != epochs[1]
    assert batch_order(10, 3, 4, 0) == epochs[1][1]
    with pytest.raises(StrataError, match="more than the 10 examples"):
        batch_order(10, 11, 0, 0)
