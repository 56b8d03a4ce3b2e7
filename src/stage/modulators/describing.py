"""What is told of a trained run besides its training: what it began with, and its health."""

from src.modulators.field import FieldModulator
from src.modulators.field_health import field_health
from src.modulators.health import residual_health
from src.modulators.modulator import Modulator
from src.modulators.residual import ResidualModulator
from src.report.finding import Finding
from src.report.modulators.beginning import beginning_finding, health_finding
from src.report.modulators.field_health import field_health_finding
from src.stage.modulators.work import MODULATOR, ModulatorWork, Run


def described(run: Run, modulator: Modulator, work: ModulatorWork) -> list[Finding]:
    """Findings for a run's own report."""
    begun = work.begun.get(work.seed(run))
    beginning = beginning_finding(begun) if run.name == MODULATOR and begun is not None else None
    health = [health_finding(residual_health(modulator))] if isinstance(modulator, ResidualModulator) else []
    if isinstance(modulator, FieldModulator):
        health.append(field_health_finding(field_health(work.model, modulator, work.val)))
    return [*health, *([] if beginning is None else [beginning])]
