"""The analyses of measure_geometry.py: all are prepared, and refused, before the first one measures."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from src.artifacts import Parent
from src.config.geometry.stage import Analysis, GeometryConfig
from src.errors import StrataError
from src.report.finding import Finding
from src.stage.context import Stage


class GeometryAnalysis(Protocol):
    """One analysis of one model, ready to measure.

    title: of the report. label: of the artifact (`src.artifacts.label(model name, analysis)`). parents: artifacts that
    it reads.
    """

    name: Analysis
    title: str
    label: str
    parents: list[Parent]

    def identity(self) -> dict[str, Any]:
        """What decides the content besides the parents: settings, digests of weights, tokenizer, the seed if drawn."""
        ...

    def measure(self, stage: Stage) -> list[Finding]:
        """Measure, and say it in words, tables, figures and records."""
        ...


Prepare = Callable[[GeometryConfig, Stage], GeometryAnalysis]


def prepare(config: GeometryConfig, stage: Stage) -> list[GeometryAnalysis]:
    """Prepare what was asked for. With analysis=all, what can't be done is left out, and the user told why.

    Raises:
        StrataError: an analysis that was named can't be done, or none of all.
    """
    prepared: list[GeometryAnalysis] = []
    reasons: dict[str, StrataError] = {}
    if config.analysis == "all" and config.name is not None:
        raise StrataError(f"name={config.name}: analysis=all makes an artifact for each analysis: name one analysis")
    for analysis in config.analyses:
        try:
            prepared.append(_PREPARE[analysis](config, stage))
        except StrataError as error:
            if config.analysis != "all":
                raise
            reasons[analysis] = error
            stage.warn(f"{analysis} is left out: {error}")
    if not prepared:
        raise StrataError("nothing can be measured: " + "; ".join(f"{name}: {why}" for name, why in reasons.items()))
    return prepared


def _of(module: str) -> Prepare:
    # an analysis loads what it needs when it is asked for: Transformers alone takes seconds
    return lambda config, stage: import_module(f"src.stage.geometry.{module}").prepare(config, stage)


_PREPARE: Mapping[Analysis, Prepare] = {
    "embeddings": _of("embeddings"),
    "simplices": _of("simplices"),
    "layers": _of("layers"),
    "lexicon": _of("lexicon"),
    "weights": _of("weights"),
}
