import pytest
from omegaconf import OmegaConf

from src.config.schema import parse_config
from src.config.stages import TransportConfig
from src.errors import StrataError
from src.stage.entry import compose
from src.transport.settings import FitSettings


def settings(*overrides):
    config = OmegaConf.to_container(compose("train_transport_operators", list(overrides)), resolve=True)
    return FitSettings.of(parse_config(TransportConfig, config))


ALWAYS = {"normalize", "target", "alpha_unit", "auto_tune"}


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["method=linear"], {"target"}),
        (["method=ridge"], {*ALWAYS, "alphas", "scoring", "alpha_per_output"}),
        (["method=ridge", "auto_tune=false", "regularization=0.5"], {*ALWAYS, "regularization"}),
        (["method=lasso"], {*ALWAYS, "alphas", "scoring", "max_iter", "tol"}),
        (["method=lasso", "auto_tune=false", "regularization=0.5"], {*ALWAYS, "regularization", "max_iter", "tol"}),
        (["method=elasticnet"], {*ALWAYS, "alphas", "l1_ratios", "scoring", "max_iter", "tol"}),
        (
            ["method=elasticnet", "auto_tune=false", "regularization=0.5"],
            {*ALWAYS, "regularization", "l1_ratio", "max_iter", "tol"},
        ),
        (["method=jacobian", "jacobian.batch_size=7"], {"jacobian"}),
        *(([f"method={name}"], set()) for name in ("procrustes", "procrustes_scaled", "identity", "mean")),
    ],
)
def test_the_fingerprint_covers_what_decides_the_fit_and_nothing_else(overrides, keys):
    assert set(settings(*overrides).identity()) == keys


@pytest.mark.parametrize("method", ["ridge", "lasso", "elasticnet"])
def test_a_grid_of_one_s_own_wins_and_null_is_the_method_s(method):
    own = settings(f"method={method}", "alphas=[0.5,2.0]").identity()
    assert own["alphas"] == [0.5, 2.0]
    relative, absolute = (settings(f"method={method}", f"alpha_unit={unit}") for unit in ("relative", "absolute"))
    assert relative.identity()["alphas"] == list(relative.grid) != list(absolute.grid)
    # written out, it is the same fit
    spelled = settings(f"method={method}", f"alphas={list(relative.grid)}")
    assert spelled.identity() == relative.identity()


def test_least_squares_has_one_identity_for_raw_and_standardised_variables():
    assert settings("method=linear", "normalize=true").identity() == settings("method=linear").identity()


def test_the_tokens_of_jacobians_decide_and_their_batches_do_not():
    default = settings("method=jacobian").identity()
    assert default == settings("method=jacobian", "jacobian.tokens=256", "jacobian.batch_size=3").identity()
    assert settings("method=jacobian", "jacobian.tokens=5").identity() != default


@pytest.mark.parametrize("key", ["tokens", "batch_size"])
def test_keys_of_jacobians_are_refused_elsewhere(key):
    with pytest.raises(StrataError, match=rf"jacobian\.{key}=5 would be ignored: it needs method=jacobian"):
        settings("method=ridge", f"jacobian.{key}=5")


@pytest.mark.parametrize("offset", ["1", "[0,1]", "[-1]"])
def test_jacobians_are_those_at_the_same_token(offset):
    with pytest.raises(StrataError, match=r"position_offset=.* and method=jacobian"):
        settings("method=jacobian", f"experiment.position_offset={offset}")
