"""The transport atlas: what eval.py draws over all pairs of layers besides the scores themselves."""

from collections.abc import Mapping
from statistics import median

from src.report.artifact_report import NamedChart
from src.report.by_offset import figures_by_offset
from src.report.evaluation import Evaluations, fitted_as
from src.report.figures.decay import decay_with_leap
from src.report.figures.heatmap import pair_heatmap
from src.report.records import estimate_fields
from src.transport.evaluate import OPERATOR
from src.transport.pairs import LayerPair
from src.transport.saved import SavedOperator


def alpha_figures(operators: Mapping[LayerPair, SavedOperator]) -> list[NamedChart]:
    """The heat map of chosen alphas, once for each position offset; nothing where a method has none."""
    return figures_by_offset(list(operators), lambda chosen: _alpha({pair: operators[pair] for pair in chosen}))


def _alpha(operators: Mapping[LayerPair, SavedOperator]) -> list[NamedChart]:
    metadata = {pair: saved.metadata() for pair, saved in operators.items()}
    relative = {pair: each.get("relative_alpha") for pair, each in metadata.items()}
    per_output = {pair: median(each["output_alphas"]) for pair, each in metadata.items() if each.get("output_alphas")}
    label = "median alpha" if per_output else "relative alpha"
    values = {pair: alpha for pair, alpha in {**relative, **per_output}.items() if alpha}
    if not values:
        return []
    unit = "of the outputs' own alphas, as scikit-learn counts them" if per_output else "in the method's relative unit"
    chart = pair_heatmap(
        [{"layer": pair.L, "leap": pair.k, "alpha": alpha} for pair, alpha in values.items()],
        "alpha",
        "Penalty of the operators",
        label=label,
        log=True,
    )
    caption = f"Alpha {unit}: how much the fit of each pair is held back. Chosen by cross-validation unless given."
    return [NamedChart("alpha", "Alpha over (L, k)", chart, caption)]


def decay_figures(evaluations: Evaluations) -> list[NamedChart]:
    """R2 and skill against the leap, by source layer, and R2 by target layer; nothing where all pairs have one leap.

    Once for each position offset.
    """
    return figures_by_offset(list(evaluations), lambda chosen: _decay({pair: evaluations[pair] for pair in chosen}))


def _decay(evaluations: Evaluations) -> list[NamedChart]:
    if len({pair.k for pair in evaluations}) < 2:
        return []
    records = []
    for pair, evaluation in evaluations.items():
        operator = evaluation.predictors[OPERATOR]
        record = {"layer": pair.L, "leap": pair.k}
        for name, estimate in (("r2", operator.metrics.r2_uniform), ("skill", operator.skill)):
            record |= estimate_fields(name, estimate)
        records.append(record)
    bands = f"{fitted_as(evaluations)}. Bands are 95 % intervals over documents."
    return [
        NamedChart(
            "decay_r2",
            "R² with distance",
            decay_with_leap(records, "r2", "How R² falls with the leap", label="R²"),
            f"One line per source layer, of {bands}",
        ),
        NamedChart(
            "decay_skill",
            "Skill with distance",
            decay_with_leap(records, "skill", "Skill against the identity by leap", label="skill"),
            f"1 - SSE / SSE of y = x: over a longer leap the identity gets worse too. By source layer, of {bands}",
        ),
        NamedChart(
            "decay_r2_by_target",
            "R² with distance, by target",
            decay_with_leap(records, "r2", "How far back a layer can be read from", label="R²", by="target"),
            f"One line per target layer, whose variance stays the same along the line, of {bands}",
        ),
    ]
