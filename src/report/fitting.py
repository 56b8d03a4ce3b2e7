"""What train_transport_operators.py shows of its fits."""

from collections.abc import Sequence

from src.report.artifact_report import NamedChart
from src.report.figures.alpha_path import alpha_path
from src.report.figures.heatmap import pair_heatmap
from src.report.tables import Table
from src.transport.fitting import PairFit
from src.transport.saved import score_rows


def pair_table(fits: Sequence[PairFit]) -> Table:
    """One row per pair: alpha, cross-validated and held-out R2, and the baselines that need no fit."""
    rows = []
    for fit in fits:
        scores = None if fit.path is None else fit.path.mean_scores
        rows.append(
            [
                fit.pair.L,
                fit.pair.k,
                fit.operator.alpha,
                fit.operator.metadata["relative_alpha"],
                "-" if fit.path is None else "edge of grid" if fit.path.at_edge else "inside",
                None if scores is None or fit.path is None else float(scores[fit.path.best]),
                fit.val.r2_uniform,
                fit.val.r2_variance_weighted,
                fit.shift.r2_variance_weighted,
                fit.identity.r2_variance_weighted,
            ]
        )
    cv = _cv_score(fits)
    columns = ["L", "k", "alpha", "relative", "optimum", cv, "val R²", "val R² vw", "shift vw", "identity vw"]
    caption = (
        f"R² is the mean over dimensions, vw weighs them by variance. {cv}: mean over the folds, what alpha was chosen "
        "by. val: documents that no fit and no choice saw. shift: y = x + mean(y - x); identity: y = x. alpha is "
        "scikit-learn's; relative: in units of tr(X'X)/d_model."
    )
    return Table("Transport operators", columns, rows, caption)


def _cv_score(fits: Sequence[PairFit]) -> str:
    """The name of the score that alpha was chosen by."""
    scorings = {fit.path.scoring for fit in fits if fit.path is not None}
    return "CV R² vw" if scorings == {"variance_weighted"} else "CV R²"


def fit_text(fits: Sequence[PairFit]) -> str:
    """What to look out for."""
    edges = [str(fit.pair) for fit in fits if fit.path is not None and fit.path.at_edge]
    if not edges:
        return "Each alpha was chosen inside its grid."
    return f"The best alpha lies at an edge of the grid for {', '.join(edges)}: widen alphas to be sure of it."


def fit_figures(fits: Sequence[PairFit], relative: bool = True) -> list[NamedChart]:
    """The regularisation paths and a heat map of held-out R2.

    relative: the unit in which alphas are drawn, that of the grid.
    """
    records = []
    for fit in fits:
        if fit.path is None:
            continue
        by_alpha: dict[float, list[dict]] = {}
        for row in score_rows(fit):
            by_alpha.setdefault(row["relative_alpha" if relative else "alpha"], []).append(row)
        name = f"r2_{fit.path.scoring}"
        for alpha, rows in by_alpha.items():
            scores = [row[name] for row in rows]
            records.append(
                {
                    "layer": fit.pair.L,
                    "leap": fit.pair.k,
                    "alpha": alpha,
                    "score": sum(scores) / len(scores),
                    "folds": scores,
                    "chosen": rows[0]["chosen"],
                }
            )
    values = [{"layer": fit.pair.L, "leap": fit.pair.k, "r2": fit.val.r2_uniform} for fit in fits]
    figures = [
        NamedChart(
            "val_r2",
            "Held-out R² (val)",
            pair_heatmap(values, "r2", "R² on the val documents", label="R²"),
            "Mean over dimensions, on documents that no fit and no choice of alpha saw. The test documents are left to "
            "eval.py.",
        )
    ]
    if records:
        caption = "A flat curve: the choice hardly matters. Bands span the folds, each against itself."
        chart = alpha_path(records, label=_cv_score(fits), relative=relative)
        figures.append(NamedChart("alpha_path", "Choice of alpha", chart, caption))
    return figures
