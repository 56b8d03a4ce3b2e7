"""Find what an earlier stage made: the activation store of a model and a dataset, and its split into groups."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8

from src.activations.passes import store_hashes
from src.activations.splits import split_groups
from src.activations.store import ActivationStore
from src.artifacts import Artifact, choose_artifact, list_artifacts
from src.config.shared import DatasetConfig, ModelConfig
from src.config.stages import SplitConfig
from src.stage.context import Stage

_MODEL_KEYS = ("name", "path", "revision")


def find_store(stage: Stage, chosen: str | None, model: ModelConfig, dataset: DatasetConfig) -> ActivationStore:
    """The store that the user chose by name or path, else the only one of this model and dataset.

    Raises StrataError if there is none, or more than one; the message says what to do.
    """
    wanted_model = {key: getattr(model, key) for key in _MODEL_KEYS}
    wanted_dataset = dataset.model_dump(mode="json")

    def fits(artifact: Artifact) -> bool:
        config = artifact.meta.config
        return {key: config["model"][key] for key in _MODEL_KEYS} == wanted_model and config[
            "dataset"
        ] == wanted_dataset

    candidates = [artifact for artifact in list_artifacts(stage.root, "activations") if fits(artifact)]
    remedy = (
        f"collect them with collect_activations.py (model={model.name}, dataset.dataset_name={dataset.dataset_name}), "
        "or name a store with activations=..."
    )
    artifact = choose_artifact(stage.root, "activations", chosen, candidates, key="activations", remedy=remedy)
    return ActivationStore(artifact)


@dataclass(frozen=True)
class Split:
    """The group of every sequence of a store: groups 0..n_folds-1 are the folds of train, then val, then test."""

    groups: Int8[np.ndarray, " sequence"]
    n_folds: int

    @property
    def train(self) -> list[int]:
        """The folds of train."""
        return list(range(self.n_folds))

    @property
    def val(self) -> int:
        """The group of val."""
        return self.n_folds

    @property
    def test(self) -> int:
        """The group of test."""
        return self.n_folds + 1


def split_store(store: ActivationStore, shares: SplitConfig, n_folds: int, seed: int) -> Split:
    """Split a store by document: by contents and seed alone, so that every stage finds the same split again."""
    groups = split_groups(store_hashes(store, seed), (shares.train, shares.val, shares.test), n_folds)
    return Split(groups, n_folds)
