"""Training through SAELens: what we drive step by step must be what SAELens' own trainer does."""

import json
from itertools import count, islice
from typing import Any, get_args

import pytest
import sae_lens
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from safetensors.torch import load_file

from src.config.train_sae import Architecture
from src.errors import StrataError
from src.features.sae import load_sae
from src.features.training.trainer import SaeTraining, TrainingSettings, first_seed
from src.hook_points import HookPoint
from tests.fixtures.saes import sae_config

A, B = HookPoint("resid_post", 1), HookPoint("mlp_out", 2)
D, F, BATCH = 12, 24, 32
KEYS: dict[str, dict[str, Any]] = {
    "topk": {"k": 3},
    "abstopk": {"k": 3},
    "batchtopk": {"k": 3.5},
    "matryoshka_batchtopk": {"k": 3, "matryoshka_widths": [6, 12, F]},
    "standard": {"l1_coefficient": 0.5, "l1_warm_up_steps": 10},
    "gated": {"l1_coefficient": 0.5},
    "jumprelu": {"l0_coefficient": 0.2, "l0_warm_up_steps": 5},
    "matching_pursuit": {"max_iterations": 3, "decoder_init_norm": 1.0},
}
CPU = torch.device("cpu")


def settings(architecture: str = "topk", n_steps: int = 40, **changes: Any) -> TrainingSettings:
    values: dict[str, Any] = {
        "architecture": architecture,
        "d_sae": F,
        "keys": KEYS[architecture],
        "tokens": n_steps * BATCH,
        "batch_size": BATCH,
        "lr": 3e-3,
        "warm_up": 0.1,
        "decay": 0.5,
        "normalize_activations": "expected_average_only_in",
        "b_dec_init": "zeros",
        "dead_feature_window": 5,
        "dtype": "float32",
        "seed": 0,
        "metadata": {"model_name": "tiny"},
    }
    return TrainingSettings(**values | changes)


def rows_of(step: int) -> dict[HookPoint, torch.Tensor]:
    draws = torch.Generator().manual_seed(step)
    basis = torch.randn(F, D, generator=torch.Generator().manual_seed(99))
    latents = torch.rand(BATCH, F, generator=draws) * (torch.rand(BATCH, F, generator=draws) < 0.1)
    rows = 5 * latents @ basis + 2
    return {A: rows, B: -rows}


def stream(start: int = 0):
    return map(rows_of, count(start))


def trained(which: TrainingSettings, points=(A,), steps: int | None = None) -> SaeTraining:
    training = SaeTraining(points, D, which, CPU)
    training.begin(stream())
    for batch in islice(stream(), which.n_steps if steps is None else steps):
        training.train(batch)
    return training


def weights(training: SaeTraining, folder, point=A, dtype="float32") -> dict[str, torch.Tensor]:
    training.save(point, folder, dtype)
    return load_file(folder / "sae_weights.safetensors")


def test_the_config_knows_the_architectures_that_saelens_trains():
    assert set(get_args(Architecture)) == {name for name in SAE_TRAINING_CLASS_REGISTRY if "transcoder" not in name}
    assert set(KEYS) == set(get_args(Architecture))


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu", "standard"])
@pytest.mark.parametrize("normalisation", ["expected_average_only_in", "none"])
def test_the_weights_are_those_of_saelens_own_loop(architecture, normalisation, tmp_path):
    which = settings(architecture, normalize_activations=normalisation)
    ours = weights(trained(which), tmp_path / "ours")
    sae_class, config_class = SAE_TRAINING_CLASS_REGISTRY[architecture]
    torch.manual_seed(first_seed(which.seed, A))
    sae = sae_class(config_class(d_in=D, d_sae=F, normalize_activations=normalisation, **KEYS[architecture]))
    config = SAETrainerConfig(
        total_training_samples=40 * BATCH,
        train_batch_size_samples=BATCH,
        lr=3e-3,
        lr_end=3e-3,
        lr_warm_up_steps=4,
        lr_decay_steps=20,
        dead_feature_window=5,
        n_batches_for_norm_estimate=40,
        logger=LoggingConfig(log_to_wandb=False),
    )
    # what the estimate of the norm draws comes from the same batches again
    first = 40 if normalisation != "none" else 0
    batches = (batch[A] for source in (islice(stream(), first), stream()) for batch in source)
    fitted = sae_lens.SAETrainer(cfg=config, sae=sae, data_provider=batches).fit()
    fitted.save_inference_model(tmp_path / "theirs")
    theirs = load_file(tmp_path / "theirs" / "sae_weights.safetensors")
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_a_run_that_was_cut_ends_with_the_same_weights(architecture, tmp_path):
    which = settings(architecture, n_steps=16, b_dec_init="mean")
    whole = weights(trained(which, (A, B)), tmp_path / "whole")
    trained(which, (A, B), steps=9).save_state(tmp_path / "state")
    rest = SaeTraining((A, B), D, which, CPU)
    rest.load_state(tmp_path / "state", 9)
    for batch in islice(stream(9), 7):
        rest.train(batch)
    resumed = weights(rest, tmp_path / "resumed")
    assert rest.step == 16
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole" / "cfg.json").read_text() == (tmp_path / "resumed" / "cfg.json").read_text()


def test_an_sae_does_not_depend_on_those_beside_it(tmp_path):
    alone = weights(trained(settings()), tmp_path / "alone")
    beside = weights(trained(settings(), (B, A)), tmp_path / "beside")
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


@pytest.mark.parametrize(
    ("architecture", "normalisation"),
    [
        *((each, "expected_average_only_in") for each in get_args(Architecture)),
        *((each, "covariance_whitening") for each in ("topk", "batchtopk", "gated", "jumprelu")),
    ],
)
def test_what_is_saved_is_what_is_judged_on_the_way(architecture, normalisation, tmp_path):
    training = trained(settings(architecture, n_steps=10, normalize_activations=normalisation))
    training.save(A, tmp_path, "float32")
    sae, on_the_way = load_sae(sae_config(path=str(tmp_path))), training.inference_sae(A)
    rows = rows_of(77)[A]
    assert sae.point == on_the_way.point == A
    assert (sae.model_name, sae.hook_name) == ("tiny", "blocks.1.hook_resid_post")
    for ours, theirs in zip(on_the_way.reconstruct(rows), sae.reconstruct(rows), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(sae_lens.SAE.load_from_disk(tmp_path).encode(rows), sae.encode(rows))
    # activations as they are go in, and come out
    fvu = (sae.reconstruct(rows)[1] - rows).square().sum() / (rows - rows.mean(0)).square().sum()
    assert fvu < 1.5


def test_training_lowers_the_error_and_the_bias_may_start_at_the_mean():
    rows = rows_of(77)[A]

    def fvu(training: SaeTraining) -> float:
        error = training.inference_sae(A).reconstruct(rows)[1] - rows
        return float(error.square().sum() / (rows - rows.mean(0)).square().sum())

    scores = [fvu(trained(settings(n_steps=200, b_dec_init="mean"), steps=steps)) for steps in (0, 20, 200)]
    assert scores[0] > scores[1] > scores[2]
    assert scores[2] < 0.5
    start = trained(settings(b_dec_init="mean"), steps=0)
    mean = torch.cat([batch[A] for batch in islice(stream(), 40)]).mean(0)
    torch.testing.assert_close(start.means[A], mean)
    torch.testing.assert_close(start.inference_sae(A).module.b_dec, mean)


def test_weights_are_stored_in_another_dtype_and_computed_in_float32(tmp_path):
    training = trained(settings())
    exact, rounded = weights(training, tmp_path / "32"), weights(training, tmp_path / "16", dtype="float16")
    assert {weight.dtype for weight in rounded.values()} == {torch.float16}
    sae = load_sae(sae_config(path=str(tmp_path / "16")))
    assert torch.equal(sae.module.W_dec, exact["W_dec"].half().float())
    assert json.loads((tmp_path / "16" / "cfg.json").read_text())["dtype"] == "float32"
    assert sae_lens.SAE.load_from_disk(tmp_path / "16").W_dec.dtype == torch.float32


def test_weights_that_the_storage_dtype_can_t_hold_are_refused(tmp_path):
    training = trained(settings(normalize_activations="none"), steps=0)
    training._trainers[A].sae.b_dec.data.fill_(1e5)
    with pytest.raises(StrataError, match=r"^b_dec of the SAE of resid_post\.1 exceed what float16 can hold: use"):
        training.save(A, tmp_path, "float16")


def test_divergence_is_told():
    training = trained(settings(), steps=2)
    training.refuse_divergence()
    training.train({A: torch.full((BATCH, D), float("nan"))})
    with pytest.raises(StrataError, match=r"^the loss of the SAE of resid_post\.1 is nan at step 3: lower lr=0\.003"):
        training.refuse_divergence()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"k": 3, "aux_loss_coeficient": 1}, r"^options\.aux_loss_coeficient means nothing .*has aux_loss_coefficient"),
        ({"k": 3, "d_in": 5}, r"^options\.d_in means nothing to architecture=topk"),
        ({"k": 3, "matryoshka_widths": [3]}, r"^options\.matryoshka_widths means nothing to architecture=topk"),
    ],
)
def test_options_that_saelens_does_not_have_are_refused(keys, message):
    with pytest.raises(StrataError, match=message):
        SaeTraining((A,), D, settings(keys=keys), CPU)


def test_what_saelens_refuses_is_told():
    whitened = settings("matching_pursuit", normalize_activations="covariance_whitening")
    with pytest.raises(StrataError, match=r"^architecture=matching_pursuit: SAELens refuses .*covariance_whitening"):
        SaeTraining((A,), D, whitened, CPU)
    keys = {"k": 3, "matryoshka_widths": [12, 6, F]}
    with pytest.raises(StrataError, match=r"^architecture=matryoshka_batchtopk: SAELens refuses its config"):
        SaeTraining((A,), D, settings("matryoshka_batchtopk", keys=keys), CPU)
