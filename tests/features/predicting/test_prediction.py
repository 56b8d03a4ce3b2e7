"""Metrics of features through an operator, against a float64 loop over features and tokens."""

import math

import numpy as np
import pytest
import sae_lens
import torch

from src.activations.passes import Rows
from src.activations.products import Precision
from src.errors import StrataError
from src.features.predicting.pair_scores import FeatureScores, score_features
from src.features.predicting.pair_sums import N_SUMS
from src.features.predicting.prediction import ChosenFeatures, LinearPrediction, prediction_blocks, sum_features
from src.features.sae import Sae
from src.hook_points import HookPoint

SOURCE, TARGET = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
D, F = 12, 24


def top_k_sae(d: int = D, n_features: int = F, k: int = 5, seed: int = 0) -> Sae:
    """Decoder rows of unequal length, a threshold below which a feature is silent."""
    torch.manual_seed(seed)
    module = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=d, d_sae=n_features, k=k))
    module.W_dec.data = torch.randn(n_features, d) * torch.linspace(0.5, 2, n_features)[:, None]
    module.W_enc.data = torch.linalg.pinv(module.W_dec.data)
    module.b_enc.data = torch.linspace(-0.6, 0.2, n_features)
    module.b_dec.data = torch.randn(d) * 0.3
    module.eval().requires_grad_(False)
    return Sae(module, "made", None, TARGET, False)


def rows_of(x, y, document, counted=None) -> Rows:
    counted = np.ones(len(x), bool) if counted is None else counted
    activations = {point: torch.from_numpy(values.astype(np.float32)) for point, values in ((SOURCE, x), (TARGET, y))}
    document = torch.from_numpy(np.asarray(document, dtype=np.int64))
    is_counted = torch.from_numpy(counted)
    return Rows(activations, document, torch.zeros_like(document), is_counted, torch.zeros_like(is_counted))


def prediction(weight, bias, x_mean, y_mean) -> LinearPrediction:
    tensors = (torch.from_numpy(np.asarray(each, dtype=np.float64)) for each in (weight, bias, x_mean, y_mean))
    return LinearPrediction(SOURCE, TARGET, *tensors)


def scored(
    sae: Sae, ids, predicted: LinearPrediction, *batches: Rows, precision: Precision = "float64"
) -> FeatureScores:
    chosen = ChosenFeatures(sae, torch.tensor(ids))
    told: list[int] = []
    sums = sum_features(chosen, {"it": predicted}, batches, torch.device("cpu"), precision, told.append)
    assert sum(told) == sum(int(rows.is_counted.sum()) for rows in batches)
    return score_features(chosen.ids, sums["it"])


@pytest.fixture(scope="module")
def case():
    """A noisy linear map with means that are not 0; 9 rows are not counted, and would ruin every metric."""
    rng = np.random.default_rng(1)
    n = 700
    x = rng.standard_normal((n, D)) + 0.7
    weight, bias = rng.standard_normal((D, D)) / 3, rng.standard_normal(D)
    y = x @ weight + bias + 0.5 * rng.standard_normal((n, D))
    x, y = x.astype(np.float32).astype(float), y.astype(np.float32).astype(float)
    counted = np.ones(n, bool)
    counted[rng.choice(n, 9, replace=False)] = False
    x[~counted] = 1e4
    estimate = weight + 0.05 * rng.standard_normal((D, D))
    return top_k_sae(), x, y, counted, prediction(estimate, bias, np.full(D, 0.6), np.full(D, 1.1))


IDS = [3, 23, 4, 12, 11, 19]


@pytest.fixture(scope="module")
def scores(case):
    sae, x, y, counted, predicted = case
    document = np.arange(len(x)) // 7
    halves = [
        rows_of(*(each[part] for each in (x, y, document, counted))) for part in (slice(0, 300), slice(300, None))
    ]
    return scored(sae, IDS, predicted, *halves)


def expected(case) -> dict[int, dict[str, float]]:
    """Feature by feature, as the formulas are written, nothing shared with the code under test but SAELens' encode."""
    sae, x, y, counted, predicted = case
    x, y = x[counted], y[counted]
    weight, bias, x_mean, y_mean = (
        each.numpy() for each in (predicted.weight, predicted.bias, predicted.source_mean, predicted.target_mean)
    )
    predictors = {"": x @ weight + bias, "_identity": x, "_identity_shift": x - x_mean + y_mean}
    predictors["_mean"] = np.tile(y_mean, (len(y), 1))
    latents = {name: encoded(sae, rows) for name, rows in predictors.items()}
    z_true = encoded(sae, y)
    found = {}
    for feature in IDS:
        direction = sae.decoder[feature].double().numpy()
        direction = direction / np.linalg.norm(direction)
        z = z_true[:, feature]
        sets = {"all": np.ones(len(y), bool), "active": z > 1e-6, "predicted": latents[""][:, feature] > 1e-6}
        record = {"activation_rate": (z > 1e-6).mean()}
        for name, prediction_rows in predictors.items():
            for tokens, chosen in sets.items():
                metrics = projection_metrics(y[chosen] @ direction, prediction_rows[chosen] @ direction)
                record |= {f"{tokens}_{metric}{name}": value for metric, value in metrics.items()}
            record |= {f"{metric}{name}": value for metric, value in firing(z, latents[name][:, feature]).items()}
        for tokens in sets:
            record[f"{tokens}_skill"] = 1 - record[f"{tokens}_mse_lat"] / record[f"{tokens}_mse_lat_identity"]
            record[f"{tokens}_skill_shift"] = (
                1 - record[f"{tokens}_mse_lat"] / record[f"{tokens}_mse_lat_identity_shift"]
            )
        found[feature] = record
    return found


def encoded(sae: Sae, rows: np.ndarray) -> np.ndarray:
    return sae.module.encode(torch.from_numpy(rows.astype(np.float32))).double().numpy()


def projection_metrics(a, p):
    ratio = np.abs(p) / np.abs(a)
    return {
        "r2_lat": 1 - ((a - p) ** 2).sum() / ((a - a.mean()) ** 2).sum(),
        "mse_lat": ((a - p) ** 2).mean(),
        "r_pearson": np.corrcoef(a, p)[0, 1] if p.std() > 1e-9 else 0.0,
        "calibration": (a * p).sum() / np.sqrt((a**2).sum() * (p**2).sum()),
        "rms_true": np.sqrt((a**2).mean()),
        "rms_pred": np.sqrt((p**2).mean()),
        "rms_ratio": np.sqrt((p**2).mean() / (a**2).mean()),
        "mean_ratio": p.mean() / a.mean(),
        "mean_abs_ratio": np.abs(p).mean() / np.abs(a).mean(),
        "mad_ratio": np.abs(a - p).mean() / np.abs(a).mean(),
        "rel_error_mean": (np.abs(a - p) / np.abs(a)).mean(),
        "log_mse_ratio": (np.log(ratio) ** 2).mean(),
    }


def firing(z, p):
    true, on = z > 1e-6, p > 1e-6
    both = (true & on).sum()
    return {
        "latent_r2": 1 - ((z - p) ** 2).sum() / ((z - z.mean()) ** 2).sum(),
        "latent_mse": ((z - p) ** 2).mean(),
        "precision": both / on.sum() if on.any() else math.nan,
        "recall": both / true.sum(),
        "f1": 2 * both / (on.sum() + true.sum()),
        "rate_predicted": on.mean(),
    }


def test_every_metric_is_that_of_a_loop_over_features_for_all_three_sets_of_tokens(case, scores):
    unseen = set()
    for place, (feature, record) in enumerate(expected(case).items()):
        assert scores.ids[place] == feature
        for column, values in scores.columns.items():
            if column in record:
                told = float(values[place])
                assert told == pytest.approx(record[column], rel=1e-6, abs=1e-6, nan_ok=True), (feature, column)
            elif not column.endswith(("_low", "_high")):
                unseen.add(column)
    assert unseen == {"all_n", "active_n", "predicted_n", "true_latent_mean", "latent_skill", "latent_skill_shift"}
    assert scores.n_rows == case[3].sum()


def test_float32_products_differ_by_rounding_alone(case, scores):
    sae, x, y, counted, predicted = case
    coarse = scored(sae, IDS, predicted, rows_of(x, y, np.arange(len(x)) // 7, counted), precision="float32")
    for column in ("all_r2_lat", "active_r_pearson", "predicted_rms_ratio", "latent_r2"):
        torch.testing.assert_close(coarse[column], scores[column], rtol=1e-4, atol=1e-4)


def test_the_chunks_of_rows_and_features_change_nothing(case, scores, monkeypatch):
    sae, x, y, counted, predicted = case
    monkeypatch.setattr("src.features.predicting.prediction._FEATURES_AT_ONCE", 4)
    monkeypatch.setattr("src.features.predicting.prediction._MOST_ROWS", 64)
    monkeypatch.setattr("src.features.predicting.pair_scores._FEATURES_AT_ONCE", 5)
    again = scored(sae, IDS, predicted, rows_of(x, y, np.arange(len(x)) // 7, counted))
    assert again.columns.keys() == scores.columns.keys()
    for column, values in scores.columns.items():
        torch.testing.assert_close(again[column], values, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert again.medians["latent_r2"] == pytest.approx(scores.medians["latent_r2"])


def test_an_exact_operator_predicts_every_feature_and_its_firing():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, D)).astype(np.float32)
    weight = np.round(rng.standard_normal((D, D)), 1)
    y = (x.astype(float) @ weight).astype(np.float32)
    found = scored(
        top_k_sae(),
        list(range(F)),
        prediction(weight, np.zeros(D), x.mean(0), y.mean(0)),
        rows_of(x, y, np.arange(400)),
    )
    fires = found["activation_rate"] > 0
    assert fires.sum() >= 20
    for column in (
        "all_r2_lat",
        "latent_r2",
        "f1",
        "precision",
        "recall",
        "all_r_pearson",
        "all_rms_ratio",
        "all_skill",
    ):
        torch.testing.assert_close(found[column][fires], torch.ones(int(fires.sum())).double(), atol=2e-5, rtol=0)
    assert found["latent_r2"][~fires].isnan().all()
    assert (found["f1_low"][fires].nan_to_num(0) < 1).all()  # what is right every time so far need not always be


def test_of_a_feature_that_is_noise_nothing_is_transported():
    """Feature 0 of the target is drawn apart from the source; the others are the source's."""
    rng = np.random.default_rng(0)
    n, d = 3000, 4
    sae = identity_sae(d)
    x = np.abs(rng.standard_normal((n, d)))
    y = x.copy()
    y[:, 0] = np.abs(rng.standard_normal(n))
    fitted = np.linalg.lstsq(np.c_[x[:1500], np.ones(1500)], y[:1500], rcond=None)[0]
    held_out = rows_of(x[1500:], y[1500:], np.arange(1500) // 5)
    found = scored(
        sae, list(range(d)), prediction(fitted[:-1], fitted[-1], x[:1500].mean(0), y[:1500].mean(0)), held_out
    )
    assert found["all_r2_lat"][0] <= 0.005
    assert found["latent_r2"][0] <= 0.005
    assert found["latent_r2_low"][0] <= 0
    assert (found["latent_r2"][1:] > 0.999).all()
    # a worse baseline than the mean is beaten, which is why skill against the identity alone would flatter
    assert found["all_skill"][0] > 0.3
    identity = scored(sae, [0], prediction(np.eye(d), np.zeros(d), x.mean(0), y.mean(0)), held_out)
    assert float(identity["all_skill"][0]) == pytest.approx(0, abs=1e-9)
    assert float(identity["latent_skill"][0]) == pytest.approx(0, abs=1e-9)


def identity_sae(d: int, threshold: float = 0.0) -> Sae:
    """One feature for each dimension: its value where that exceeds the threshold."""
    module = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(d_in=d, d_sae=d))
    module.W_enc.data, module.W_dec.data = torch.eye(d), torch.eye(d)
    module.b_enc.data, module.b_dec.data = torch.zeros(d), torch.zeros(d)
    module.threshold.data = torch.full((d,), threshold)
    return Sae(module.eval().requires_grad_(False), "made", None, TARGET, False)


def test_where_only_tokens_with_large_values_are_scored_a_good_predictor_looks_bad():
    """B13: R2 is 0.81 over all tokens, and far below 0 over those where the feature fires: their range is narrow."""
    rng = np.random.default_rng(0)
    n, d = 20_000, 3
    x = rng.standard_normal((n, d))
    y = 0.9 * x + math.sqrt(1 - 0.81) * rng.standard_normal((n, d))
    found = scored(
        identity_sae(d, threshold=1.6),
        [0, 1, 2],
        prediction(0.9 * np.eye(d), np.zeros(d), np.zeros(d), np.zeros(d)),
        rows_of(x, y, np.arange(n) // 10),
    )
    assert found["all_r2_lat"].numpy() == pytest.approx(0.81, abs=0.01)
    assert (found["activation_rate"] < 0.07).all()
    assert (found["active_r2_lat"] < -0.5).all()
    assert (found["predicted_r2_lat"] > found["active_r2_lat"]).all()
    assert (found["f1"] > 0.55).all()


def test_what_never_fires_or_fires_once_has_no_score_where_there_are_no_tokens():
    x = np.random.default_rng(0).standard_normal((50, 3))
    y = x.copy()
    y[:, 0], y[:, 1] = -1, -1
    y[7, 1] = 2
    exact = prediction(np.eye(3), np.zeros(3), np.zeros(3), np.zeros(3))
    found = scored(identity_sae(3), [0, 1, 2], exact, rows_of(x, y, np.arange(50)))
    assert found["active_n"].tolist() == [0, 1, int((y[:, 2] > 0).sum())]
    for column in ("active_r2_lat", "active_rms_ratio", "active_log_mse_ratio"):
        assert found[column].isnan().tolist() == [True, True, False]
    assert found["latent_r2"].isnan().tolist() == [True, False, False]
    assert found["recall"].isnan().tolist() == [True, False, False]
    assert found["precision"][0] == 0
    assert found["latent_r2_low"].isnan().tolist() == [True, True, False]  # one document tells no interval


def test_what_cannot_be_scored_is_refused(case):
    sae, x, y, _, predicted = case
    with pytest.raises(StrataError, match="it has features 0 to 23"):
        ChosenFeatures(sae, torch.tensor([0, 24]))
    with pytest.raises(StrataError, match=r"\(none\)"):
        ChosenFeatures(sae, torch.tensor([], dtype=torch.long))
    with pytest.raises(StrataError, match="named twice: 3, 3"):
        ChosenFeatures(sae, torch.tensor([3, 3]))
    with pytest.raises(StrataError, match="no rows to evaluate"):
        scored(sae, [0], predicted, rows_of(x, y, np.zeros(len(x)), np.zeros(len(x), bool)))
    with pytest.raises(StrataError, match="NaN or inf"):
        scored(sae, [0], predicted, rows_of(x * np.nan, y, np.zeros(len(x))))


def test_pairs_are_cut_into_passes_by_the_memory_of_their_sums():
    one = 8 * N_SUMS * 40 * 100
    assert prediction_blocks(list("abc"), 100, memory=2 * one) == [["a", "b"], ["c"]]
    assert prediction_blocks(list("abc"), 100, memory=1) == [["a"], ["b"], ["c"]]
