"""analysis=weights: everything that weights alone tell, read a matrix at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from src.artifacts import Parent, label
from src.config.geometry.stage import Analysis, GeometryConfig
from src.errors import NotApplicableError
from src.geometry.weights.notebook import notebook_weights
from src.geometry.weights.profile import is_measured, profile_weights
from src.models.checkpoint import Matrix, Weights, catalogue, open_weights
from src.report.finding import Finding
from src.report.geometry.weights.finding import weight_finding
from src.stage.context import Stage
from src.stage.geometry.circuits import circuit_findings


@dataclass(frozen=True, eq=False)
class WeightAnalysis:
    """The weights of one model. digest: of all of them."""

    config: GeometryConfig
    weights: Weights
    matrices: list[Matrix]
    digest: str
    name: Analysis = "weights"
    parents: list[Parent] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Of the report."""
        return f"Weights of {self.config.model.name}"

    @property
    def label(self) -> str:
        """Of the artifact."""
        return label(self.config.model.name, self.name)

    def identity(self) -> dict[str, Any]:
        """What decides the content."""
        settings = self.config.weights.model_dump(mode="json")
        if self.config.weights.circuits:
            settings["circuits"] = self.config.circuits.model_dump(mode="json")
        return {
            "analysis": self.name,
            "weights": self.digest,
            "model_type": self.weights.architecture.model_type,
            "settings": settings,
            "compat": self.config.compat,
            "seed": self.config.seed,
        }

    def measure(self, stage: Stage) -> list[Finding]:
        """Measure every matrix, and the circuits of every head if asked for."""
        config = self.config
        total = sum(is_measured(matrix) for matrix in self.matrices)
        with stage.progress("measuring weights", total, "matrices") as advance:
            profile = profile_weights(
                self.weights, self.matrices, stage.device, config.seed, config.weights.subspace_rank, advance
            )
        notebook = None
        if config.compat == "notebook":
            notebook = notebook_weights(self.weights, self.matrices, profile, stage.device)
        settings = {"model": config.model.name, "seed": config.seed, "device": str(stage.device)}
        settings |= {**config.weights.model_dump(mode="json"), "compat": config.compat}
        findings = [weight_finding(config.model.name, self.weights, self.matrices, profile, notebook, settings)]
        if config.weights.circuits:
            findings += circuit_findings(config, self.weights, self.matrices, stage)
        return findings


def prepare(config: GeometryConfig, stage: Stage) -> WeightAnalysis:
    """Find what each parameter is for, and read all once for their digest.

    Raises:
        StrataError: no such model; missing, damaged or quantised weights.
        NotApplicableError: it has no matrices.
    """
    weights = open_weights(config.model)
    for note in weights.notes:
        stage.warn(note)
    matrices = catalogue(weights)
    if not any(map(is_measured, matrices)):
        raise NotApplicableError(f"{config.model.name} has no matrices of weights")
    names = list(weights.shapes)
    with stage.progress("reading weights", len(names), "tensors") as advance:

        def told() -> Iterator[str]:
            for name in names:
                yield name
                advance(1)

        digest = weights.digest(told())
    return WeightAnalysis(config, weights, matrices, digest)
