"""The modulator at fixed strengths, beside controls of the same ones."""

import torch

from src.errors import NotApplicableError
from src.modulators.evaluation.effects import measure_effects
from src.modulators.evaluation.strength import at_strength
from src.report.finding import Finding
from src.report.modulators.evaluation.predictions import MODULATED
from src.report.modulators.evaluation.sweep import sweep_finding
from src.stage.context import Stage
from src.stage.modulators.evaluating.work import EvaluationWork


def measure_sweep(work: EvaluationWork, stage: Stage) -> Finding:
    """One pass of each variant at each strength; the modulator itself is left as it was trained.

    Raises:
        StrataError: NotApplicableError for a modulator without strengths; none of the strengths can be had.
    """
    keys = work.config.sweep
    if work.modulator.strengths() is None:
        raise NotApplicableError(f"{work.artifact.path.name} has no strengths to fix: leave sweep out of measures")
    examples = work.examples[: keys.examples]
    found, unreached = {}, []
    with stage.progress("fixed strengths", len(keys.alphas) * len(examples), "examples") as advance:
        for alpha in keys.alphas:
            fixed = at_strength(work.modulator, alpha)
            if fixed is None:
                unreached.append(alpha)
                advance(len(examples))
                continue
            variants = {MODULATED: fixed, **work.controls_of(fixed)}
            found[alpha] = measure_effects(work.model, variants, examples, work.config.batch_size, advance)
    if not found:
        raise NotApplicableError(
            f"sweep.alphas={keys.alphas}: {work.artifact.path.name} can have none of these strengths: choose others"
        )
    groups = torch.tensor([example.group for example in examples])
    return sweep_finding(found, groups, unreached, work.unit, work.config.seed)
