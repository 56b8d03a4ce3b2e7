"""Perplexity, divergence and states of test examples: frozen, modulated, and controls of equal strength."""

import torch

from src.modulators.evaluation.effects import measure_effects
from src.report.finding import Finding
from src.report.modulators.evaluation.predictions import MODULATED, predictions_finding
from src.stage.context import Stage
from src.stage.modulators.evaluating.work import EvaluationWork


def measure_predictions(work: EvaluationWork, stage: Stage) -> Finding:
    """One pass of each variant over all examples."""
    variants = {MODULATED: work.modulator, **work.controls}
    with stage.progress("predictions", len(work.examples), "examples") as advance:
        effects = measure_effects(work.model, variants, work.examples, work.config.batch_size, advance)
    groups = torch.tensor([example.group for example in work.examples])
    return predictions_finding(effects, groups, work.unit, work.config.seed)
