import math

import pytest
import torch

from src.hook_points import HookPoint
from src.report.evaluation import residual_figures, summary_table
from src.report.fitting import fit_figures, pair_table
from src.transport.affine import AffineFit, RegularizationPath
from src.transport.bootstrap import Estimate
from src.transport.closed_form import ClosedFormScore
from src.transport.evaluate import PREDICTORS, Judgement, PairEvaluation
from src.transport.fitting import PairFit
from src.transport.metrics import ResidualMetrics
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair

SCORE = ClosedFormScore(0.5, 0.6, 1.0)


def fit(scoring):
    weight, bias = torch.eye(2), torch.zeros(2)
    scores = {
        "uniform": torch.tensor([[0.1, 0.2], [0.3, 0.4]]),
        "variance_weighted": torch.tensor([[0.5, 0.6], [0.7, 0.8]]),
    }
    alphas = torch.tensor([3.0, 30.0])
    path = RegularizationPath(AffineFit(weight, bias, 30.0, 10.0, 2), alphas, alphas / 3, scores, scoring, 1)
    source, target = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
    operator = TransportOperator(weight, bias, source, target, "ridge", 30.0, {"relative_alpha": 10.0})
    return PairFit(LayerPair(0, 1), operator, path if scoring else None, SCORE, SCORE, SCORE)


@pytest.mark.parametrize(
    ("scoring", "name", "score"), [("uniform", "CV R²", 0.3), ("variance_weighted", "CV R² vw", 0.7)]
)
def test_the_score_that_chose_alpha_is_named(scoring, name, score):
    table = pair_table([fit(scoring)])
    assert table.rows[0][list(table.columns).index(name)] == pytest.approx(score)
    assert f" {name}: mean over the folds" in table.caption
    path = fit_figures([fit(scoring)])[1].chart.to_dict()
    titles = [layer["encoding"]["y"]["title"] for layer in path["spec"]["layer"]]
    assert titles[1] == f"{name}, less that of the best alpha"


@pytest.mark.parametrize(("relative", "alphas"), [(True, [1.0, 10.0]), (False, [3.0, 30.0])])
def test_alphas_are_drawn_in_the_unit_of_their_grid(relative, alphas):
    path = fit_figures([fit("uniform")], relative)[1].chart.to_dict()
    assert [row["alpha"] for row in path["data"]["values"]] == alphas


def test_fits_without_a_path_have_no_figure_of_alpha():
    assert [figure.name for figure in fit_figures([fit(None)])] == ["val_r2"]


def evaluations():
    half = Estimate(0.5, 0.4, 0.6)
    quantiles = {quantile: half for quantile in (0.05, 0.25, 0.5, 0.75, 0.95)}
    metrics = ResidualMetrics(1234, half, half, quantiles, half, half)
    judgement = Judgement(metrics, Estimate(0.1, math.nan, math.nan), metrics)
    return {LayerPair(0, 1): PairEvaluation("resid_post", "ridge", 1.0, dict.fromkeys(PREDICTORS, judgement))}


def test_the_caption_of_the_evaluation_tells_which_tokens_are_scored():
    caption = summary_table(evaluations()).caption
    assert "1,234 counted test tokens; tokens left out of statistics (BOS, special, ...) are not scored" in caption


def test_every_figure_of_the_evaluation_says_more_than_its_title():
    figures = residual_figures(evaluations())
    assert len(figures) == 5
    assert all(len(figure.caption) > 40 and not figure.caption.startswith(figure.title) for figure in figures)


def test_weighted_scores_are_spelled_out_on_their_axis():
    charts = {figure.name: figure.chart.to_dict() for figure in residual_figures(evaluations())}
    for name in ("baselines", "bos"):
        assert charts[name]["spec"]["layer"][0]["encoding"]["y"]["title"] == "variance-weighted R²"
