"""The results of measure_topology.py that are compared, and the refusal of those that can't be."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.artifacts import Artifact, choose_artifact, open_artifact, refuse_damaged
from src.config.compare_topology import CompareTopologyConfig
from src.config.shared import ModelConfig
from src.errors import StrataError
from src.report.topology.reading import Topology, read_topology
from src.stage.context import Stage
from src.stage.experiments import results_of_experiment

KIND = "topology"
# numbers of clouds whose sizes differ by more than this part are not set side by side
_SIZES = 1.1
# keys of measure_topology.py that decide which activations make up a cloud
_POINTS = ("hook", "tokens", "labels", "contexts")


@dataclass(frozen=True, eq=False)
class Result:
    """A result, and what it is called in tables: its model, or where several are of one model, its artifact."""

    label: str
    topology: Topology

    @property
    def config(self) -> dict[str, Any]:
        """The config that it was measured with."""
        return self.topology.artifact.meta.config


def find_results(config: CompareTopologyConfig, stage: Stage) -> list[Result]:
    """The results that the config names, the reference first.

    Raises:
        StrataError: none is there, one is named twice, damaged, or can't be compared with the others.
    """
    artifacts = _chosen(config, stage)
    for artifact in artifacts:
        refuse_damaged(artifact, "measure it again with overwrite=true")
    topologies = [read_topology(artifact) for artifact in artifacts]
    models = Counter(topology.model_name for topology in topologies)
    results = [
        Result(
            topology.model_name
            if topology.model_name is not None and models[topology.model_name] == 1
            else topology.artifact.path.name,
            topology,
        )
        for topology in topologies
    ]
    for other in results[1:]:
        refuse_incomparable(results[0], other)
    return _reference_first(results, config.reference)


def _chosen(config: CompareTopologyConfig, stage: Stage) -> list[Artifact]:
    if config.results == "all":
        return results_of_experiment(stage, KIND, "measure_topology.py")
    names = [config.results] if isinstance(config.results, str) else config.results
    found = [choose_artifact(stage.root, KIND, name, [], key="results", remedy="") for name in names]
    twice = [path for path, count in Counter(artifact.path.resolve() for artifact in found).items() if count > 1]
    if twice:
        raise StrataError(f"results={names}: {twice[0].name} is named twice")
    return found


def _reference_first(results: list[Result], reference: str | None) -> list[Result]:
    if reference is None:
        return results
    chosen = [result for result in results if reference in (result.label, result.topology.artifact.path.name)]
    if not chosen:
        known = ", ".join(result.label for result in results)
        raise StrataError(f"reference={reference} is none of the results: {known}")
    return [chosen[0], *(result for result in results if result is not chosen[0])]


def refuse_incomparable(first: Result, second: Result) -> None:
    """StrataError where numbers of two results mean different things; names both values, and what to do."""
    ours, theirs = first.topology.protocol, second.topology.protocol
    if ours["fingerprint"] != theirs["fingerprint"]:
        _refuse(first, second, "protocol", ours, theirs, "measure one of them again under the other's protocol=...")
    if first.config.get("clouds") is None and second.config.get("clouds") is None:
        points, others = ({key: result.config.get(key) for key in _POINTS} for result in (first, second))
        if points != others:
            _refuse(first, second, "choice of points", points, others, "measure both with the same keys")
    for key, what, remedy in (
        ("n_points", "points", "measure both with n_points={}"),
        ("n_subsample", "points in the subsamples of their bands", "measure both with the same subsamples.share"),
    ):
        sizes = [[getattr(profile, key) or 0 for profile in result.topology.profiles] for result in (first, second)]
        least = min(map(min, sizes))
        if max(map(max, sizes)) > _SIZES * least:
            words = [str(min(some)) if min(some) == max(some) else f"{min(some)} to {max(some)}" for some in sizes]
            raise StrataError(
                f"clouds of {first.label} have {words[0]} {what}, those of {second.label} {words[1]}: numbers of bars "
                f"and distances of diagrams depend on it; {remedy.format(least)}, or name results of one size with "
                "results=[...]"
            )


def _refuse(first: Result, second: Result, what: str, ours: dict[str, Any], theirs: dict[str, Any], do: str) -> None:
    differing = [key for key in ours if ours[key] != theirs.get(key) and key not in ("fingerprint", "name")]
    told = "; ".join(f"{key}: {ours[key]} and {theirs.get(key)}" for key in differing)
    raise StrataError(
        f"{first.label} and {second.label} differ in their {what} ({told}), so their numbers can't be compared: {do}, "
        "or name results that go together with results=[...]"
    )


def check_single(results: Sequence[Result]) -> None:
    """StrataError if there is nothing to compare: one result of one cloud."""
    if len(results) == 1 and len(results[0].topology.profiles) == 1:
        raise StrataError(
            f"{results[0].label} holds one cloud, and there is no other result: name several with results=[...], or "
            "measure more layers"
        )


def measured_model(result: Result) -> tuple[ModelConfig, str | None]:
    """The config of the model that a result's clouds are from, and the digest of its weights, where they are known."""
    artifact = result.topology.artifact
    for parent in artifact.meta.parents:
        folder = artifact.path.parent.parent / parent.kind / parent.name
        if parent.kind == "activations" and folder.exists():
            store = open_artifact(folder, parent.kind).meta
            return ModelConfig.model_validate(store.config["model"]), store.identity["model"]["weights"]
    identity = artifact.meta.identity["source"].get("model") or {}
    return ModelConfig.model_validate(result.config["model"]), identity.get("weights")
