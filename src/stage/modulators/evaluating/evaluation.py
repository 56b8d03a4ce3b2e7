"""All measures of eval_modulator.py, one after the other."""

from src.report.finding import Finding, joined
from src.stage.context import Stage
from src.stage.modulators.evaluating.geometry import geometry_findings
from src.stage.modulators.evaluating.predictions import measure_predictions
from src.stage.modulators.evaluating.work import EvaluationWork


def evaluate(work: EvaluationWork, stage: Stage) -> Finding:
    """What was asked for, as one finding."""
    findings = []
    if "predictions" in work.config.measures:
        findings.append(measure_predictions(work, stage))
    if "geometry" in work.config.measures:
        findings += geometry_findings(work, stage)
    return joined(findings)
