"""The results of measure_geometry.py that compare_geometry.py sets side by side."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.artifacts import Artifact, Parent, choose_artifact, label, refuse_damaged
from src.config.geometry.comparison import CompareGeometryConfig
from src.errors import StrataError
from src.geometry.published import PUBLISHED
from src.report.geometry.comparison.finding import ModelResults
from src.report.geometry.comparison.metrics import FILES, METRICS, NOTEBOOK_FILES
from src.stage.context import Stage
from src.stage.experiments import results_of_experiment

KIND = "geometry"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results of models, ready to be compared. differing: sentences on settings that they don't share."""

    config: CompareGeometryConfig
    rows: Sequence[ModelResults]
    parents: list[Parent]
    differing: Sequence[str]

    @property
    def label(self) -> str:
        """Of the artifact."""
        names = [row.name for row in self.rows]
        return label(*names) if len(names) <= 3 else label(names[0], f"and-{len(names) - 1}-more")

    def identity(self) -> dict[str, Any]:
        """What decides the content besides the results: what is read from them, and what stands beside them."""
        published = [[each.metric, each.model, each.value, each.highest, each.caveat] for each in PUBLISHED]
        return {
            "metrics": [[metric.name, metric.file, str(metric.path)] for metric in METRICS],
            "published": published if self.config.published else None,
        }


def prepare(config: CompareGeometryConfig, stage: Stage) -> Comparison:
    """Find and read the results.

    Raises:
        StrataError: none is there, one is named twice or damaged, or two of one model and analysis are named.
    """
    chosen = _chosen(config, stage)
    for artifact in chosen:
        refuse_damaged(artifact, "measure it again with overwrite=true")
    names = _model_names(chosen)
    rows = []
    for name in dict.fromkeys(names):
        own = [artifact for artifact, model in zip(chosen, names, strict=True) if model == name]
        files: dict[str, Any] = {}
        for artifact in own:
            files |= {file: _read(artifact, file) for file in (*FILES, *NOTEBOOK_FILES) if file in artifact.meta.files}
        rows.append(ModelResults(name, files, {_analysis(artifact): artifact.path.name for artifact in own}))
    return Comparison(config, rows, [artifact.parent for artifact in chosen], _differing(chosen, names))


def _chosen(config: CompareGeometryConfig, stage: Stage) -> list[Artifact]:
    if config.results == "all":
        return _newest(results_of_experiment(stage, KIND, "measure_geometry.py"), stage)
    named = [config.results] if isinstance(config.results, str) else config.results
    found = [choose_artifact(stage.root, KIND, name, [], key="results", remedy="") for name in named]
    for (_, analysis), count in Counter(map(_of, found)).items():
        if count > 1:
            names = [artifact.path.name for artifact in found if _analysis(artifact) == analysis]
            raise StrataError(
                f"results={named}: {', '.join(names)} are {analysis} of one model: a model has one row, so name one"
            )
    return found


def _newest(found: Sequence[Artifact], stage: Stage) -> list[Artifact]:
    """Of each model and analysis the result that was finished last; the user is told of what is passed over."""
    by_time = sorted(found, key=lambda artifact: artifact.meta.ended_at)
    newest = {_of(artifact): artifact for artifact in by_time}
    kept = [artifact for artifact in found if newest[_of(artifact)] is artifact]
    passed = [artifact.path.name for artifact in found if newest[_of(artifact)] is not artifact]
    if passed:
        stage.say(f"older results of the same model and analysis are passed over: {', '.join(passed)}")
    return kept


def _analysis(artifact: Artifact) -> str:
    return artifact.meta.summary["analysis"]


def _model(artifact: Artifact) -> str:
    values = {key: value for key, value in artifact.meta.config["model"].items() if key != "trust_remote_code"}
    return json.dumps(values, sort_keys=True)


def _of(artifact: Artifact) -> tuple[str, str]:
    return _model(artifact), _analysis(artifact)


def _model_names(artifacts: Sequence[Artifact]) -> list[str]:
    """What each artifact's model is called; models of one name are told apart by what differs in their configs."""
    models = {_model(artifact): artifact.meta.config["model"] for artifact in artifacts}
    count = Counter(model["name"] for model in models.values())
    names = {}
    for key, model in models.items():
        alike = [each for each in models.values() if each["name"] == model["name"]]
        differing = [field for field in model if len({str(each.get(field)) for each in alike}) > 1]
        told = " ".join(f"{field}={model[field]}" for field in differing if field != "trust_remote_code")
        names[key] = model["name"] if count[model["name"]] == 1 else f"{model['name']} {told}"
    return [names[_model(artifact)] for artifact in artifacts]


def _read(artifact: Artifact, file: str) -> Any:
    try:
        return json.loads((artifact.path / file).read_bytes())
    except (OSError, ValueError) as error:
        raise StrataError(
            f"{artifact.path / file} can't be read ({error}): measure it again with overwrite=true"
        ) from None


def _differing(artifacts: Sequence[Artifact], names: Sequence[str]) -> list[str]:
    """A sentence for each analysis whose settings are not the same for all models."""
    sentences = []
    for analysis in dict.fromkeys(map(_analysis, artifacts)):
        settings: Mapping[str, Mapping[str, Any]] = {
            name: artifact.meta.config.get(analysis) or {}
            for artifact, name in zip(artifacts, names, strict=True)
            if _analysis(artifact) == analysis
        }
        keys = dict.fromkeys(key for values in settings.values() for key in values)
        different = [key for key in keys if len({json.dumps(each.get(key)) for each in settings.values()}) > 1]
        if different:
            told = ", ".join(f"{analysis}.{key}" for key in different)
            sentences.append(f"The models were not measured alike: {told} differ.")
    return sentences
