"""All measures of eval_modulator.py, one after the other."""

from collections.abc import Callable, Mapping

from src.config.modulators.evaluate import Measure
from src.errors import NotApplicableError
from src.report.finding import Finding, joined
from src.stage.context import Stage
from src.stage.modulators.evaluating.generations import measure_generations
from src.stage.modulators.evaluating.geometry import measure_relations, measure_volumes
from src.stage.modulators.evaluating.predictions import measure_predictions
from src.stage.modulators.evaluating.sweep import measure_sweep
from src.stage.modulators.evaluating.work import EvaluationWork

_MEASURES: Mapping[Measure, Callable[[EvaluationWork, Stage], Finding]] = {
    "predictions": measure_predictions,
    "sweep": measure_sweep,
    "generations": measure_generations,
    "relations": measure_relations,
    "volumes": measure_volumes,
}


def evaluate(work: EvaluationWork, stage: Stage) -> Finding:
    """What was asked for, as one finding."""
    findings = []
    for measure in work.config.measures:
        try:
            findings.append(_MEASURES[measure](work, stage))
        except NotApplicableError as error:
            if len(work.config.measures) == 1:
                raise
            stage.warn(f"no {measure}: {error}")
            findings.append(Finding(f"There is no {measure}: {error}."))
    return joined(findings)
