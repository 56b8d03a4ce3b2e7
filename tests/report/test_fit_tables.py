import pytest
import torch

from src.hook_points import HookPoint
from src.report.fitting import fit_figures, fit_tables, fit_text, unconverged
from src.transport.affine import AffineFit, OutputChoice, RegularizationPath
from src.transport.closed_form import ClosedFormScore
from src.transport.fitting import PairFit
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair

SCORE = ClosedFormScore(0.5, 0.6, 0.1)
SPARSE = {"l1_ratio": 0.3, "zero_share": 0.5, "inputs_used": 2, "nonzero_per_output": [3, 0, 1]}


def pair_fit(method, path, alpha, **details):
    weight, bias = torch.zeros(3, 3), torch.zeros(3)
    metadata = {"relative_alpha": None if alpha is None else alpha / 2, **details}
    operator = TransportOperator(
        weight, bias, HookPoint("resid_post", 0), HookPoint("resid_post", 1), method, alpha, metadata
    )
    return PairFit(LayerPair(0, 1), operator, path, SCORE, SCORE, SCORE)


def path_of(alphas, best, ratios=None, **more):
    alphas = torch.tensor(alphas, dtype=torch.float64)
    scores = torch.linspace(0.1, 0.9, 2 * len(alphas), dtype=torch.float64).view(2, -1)
    fit = AffineFit(torch.zeros(3, 3), torch.zeros(3), 1.0, 1.0, 3)
    both = {"uniform": scores, "variance_weighted": scores}
    return RegularizationPath(fit, alphas, alphas / 2, both, "uniform", best, ratios, **more)


def cells(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_sparse_methods_have_a_table_of_their_coefficients():
    path = path_of([1.0, 2.0], 1, torch.ones(2), unconverged=torch.zeros(2, 2, dtype=torch.int64))
    pairs, sparsity = fit_tables([pair_fit("lasso", path, 2.0, unconverged_outputs=0, **SPARSE)])
    (row,) = cells(sparsity)
    assert (row["zeros"], row["inputs used"], row["l1 ratio"], row["unconverged"]) == (0.5, 2, 0.3, 0)
    assert (row["min"], row["median"], row["max"]) == (0, 1.0, 3)
    assert "smallest at which all coefficients are 0" in pairs.caption
    assert len(fit_tables([pair_fit("ridge", path_of([1.0, 2.0], 1), 2.0)])) == 1


def test_outputs_with_alphas_of_their_own_are_told_by_the_median():
    choice = OutputChoice(torch.tensor([0, 1, 1]), 0.77)
    fit = pair_fit("ridge", path_of([1.0, 2.0, 3.0], 0, per_output=choice), None, output_alphas=[1.0, 2.0, 2.0])
    (table,) = fit_tables([fit])
    (row,) = cells(table)
    assert (row["median alpha"], row["optimum"], row["CV R²"]) == (2.0, "67% inside", 0.77)
    assert "inside its grid" in fit_text([fit])


def test_a_method_without_penalty_has_empty_cells():
    (table,) = fit_tables([pair_fit("procrustes", None, None)])
    (row,) = cells(table)
    assert (row["alpha"], row["optimum"], row["CV R²"]) == (None, "-", None)
    assert "alpha" not in table.caption
    assert fit_text([pair_fit("procrustes", None, None)]) == (
        "On validation documents R² is 0.5 (L0_k1), of the identity 0.5 (L0_k1). Nothing was tuned."
    )


@pytest.mark.parametrize(
    ("final", "tried", "told"),
    [
        (0, 0, None),
        (7, 0, "the fits of L0_k1 (7 outputs) before"),
        (0, 3, "stopped 1 of 4 fits of the cross-validation before"),
        (7, 3, "the fits of L0_k1 (7 outputs) and 1 of 4 fits of the cross-validation before"),
    ],
)
def test_fits_that_ran_out_of_iterations_are_told(final, tried, told):
    counts = torch.tensor([[0, tried], [0, 0]])
    path = path_of([1.0, 2.0], 1, torch.ones(2), unconverged=counts)
    fits = [pair_fit("lasso", path, 2.0, unconverged_outputs=final, **SPARSE)]
    message = unconverged(fits)
    if told is None:
        assert message is None
        assert "max_iter" not in fit_text(fits)
    else:
        assert told in message
        assert "raise max_iter" in fit_text(fits)


def test_the_path_of_an_elastic_net_is_drawn_at_the_chosen_l1_ratio():
    ratios = torch.tensor([0.2, 0.2, 0.9, 0.9])
    path = path_of([1.0, 2.0, 1.0, 2.0], 2, ratios, unconverged=torch.zeros(2, 4, dtype=torch.int64))
    fit = pair_fit("elasticnet", path, 1.0, unconverged_outputs=0, **SPARSE)
    figure = {figure.name: figure for figure in fit_figures([fit])}["alpha_path"]
    assert "At the chosen l1 ratio" in figure.caption
    rows = figure.chart.to_dict()["data"]["values"]
    scores = path.scores["uniform"].mean(0)
    assert [row["score"] for row in rows] == pytest.approx([float(scores[2]), float(scores[3])])
    assert [row["choice"] is not None for row in rows] == [True, False]


def test_mean_jacobians_have_a_table_of_their_sample():
    told = {"n_tokens": 90, "n_documents": 30, "relative_standard_error": 0.02, "half_split_cosine": 0.9}
    pairs, averaged = fit_tables([pair_fit("jacobian", None, None, **told)])
    (row,) = cells(averaged)
    assert (row["tokens"], row["documents"], row["relative SE"], row["halves"]) == (90, 30, 0.02, 0.9)
    assert "no regression saw" in pairs.caption
    assert "no fit" not in pairs.caption
