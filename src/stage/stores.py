"""Find what an earlier stage made: the activation store of a model and a dataset, and its split into groups."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Int8

from src.activations.passes import store_hashes
from src.activations.splits import split_groups
from src.activations.store import ActivationStore
from src.artifacts import Artifact, choose_artifact, list_artifacts
from src.config.shared import DatasetConfig, ModelConfig
from src.config.stages import SplitConfig
from src.stage.context import Stage

# how far a share of the sequences may be from what was asked before the user is told
_LOPSIDED = 0.1


def find_store(
    stage: Stage, chosen: str | None, model: ModelConfig, dataset: DatasetConfig, key: str = "activations"
) -> ActivationStore:
    """The store that the user chose by name or path, else the only one of this model and dataset.

    key: what the store is called in the stage's config.

    Raises StrataError if there is none, or more than one; the message says what to do.
    """
    wanted_dataset = dataset.model_dump(mode="json")

    def fits(artifact: Artifact) -> bool:
        return is_of_model(artifact, model) and artifact.meta.config["dataset"] == wanted_dataset

    candidates = [artifact for artifact in list_artifacts(stage.root, "activations") if fits(artifact)]
    remedy = (
        f"collect them with collect_activations.py (model={model.name}, dataset.dataset_name={dataset.dataset_name}), "
        f"or name a store with {key}=..."
    )
    artifact = choose_artifact(stage.root, "activations", chosen, candidates, key=key, remedy=remedy)
    return ActivationStore(artifact)


def is_of_model(artifact: Artifact, model: ModelConfig) -> bool:
    """Whether an artifact was made with this model config."""
    wanted = model.model_dump(mode="json", exclude={"trust_remote_code"})
    return {key: artifact.meta.config["model"].get(key) for key in wanted} == wanted


@dataclass(frozen=True)
class Split:
    """The group of every sequence of a store: groups 0..n_folds-1 are the folds of train, then val, then those of test.

    documents: the document of every sequence, from 0; documents that share text count as one. wanted: the shares that
    were asked for. seed: of the hashes that decide it.
    """

    groups: Int8[np.ndarray, " sequence"]
    documents: Int[np.ndarray, " sequence"]
    n_folds: int
    wanted: SplitConfig
    seed: int
    n_test_groups: int = 1

    def identity(self) -> dict[str, Any]:
        """What decides the split of a store, for fingerprints."""
        groups = {"n_folds": self.n_folds, "n_test_groups": self.n_test_groups}
        return {"split": self.wanted.model_dump(), **groups, "seed": self.seed}

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
        """The group of test; the first one, where there are several."""
        return self.n_folds + 1

    @property
    def test_groups(self) -> list[int]:
        """The groups of test."""
        return list(range(self.test, self.n_groups))

    @property
    def n_groups(self) -> int:
        """The number of all groups."""
        return self.test + self.n_test_groups

    @property
    def n_test_documents(self) -> int:
        """Number of different documents in test."""
        return int(self.documents_per_group()[self.test :].sum())

    def documents_per_group(self) -> Int[np.ndarray, " group"]:
        """Number of different documents in each group."""
        first = np.unique(self.documents, return_index=True)[1]
        return np.bincount(self.groups[first], minlength=self.n_groups)

    def shares(self) -> tuple[float, float, float]:
        """Shares of the sequences in train, val and test, which lopsided documents keep from being what was asked."""
        counts = np.bincount(self.groups, minlength=self.n_groups) / len(self.groups)
        return float(counts[: self.n_folds].sum()), float(counts[self.val]), float(counts[self.test :].sum())


def split_store(store: ActivationStore, shares: SplitConfig, n_folds: int, seed: int, n_test_groups: int = 1) -> Split:
    """Split a store by document: by contents and seed alone, so that every stage finds the same split again.

    n_folds, n_test_groups: groups that train and test are dealt to; they do not change what is train, val and test.
    """
    hashes = store_hashes(store, seed)
    groups = split_groups(hashes, (shares.train, shares.val, shares.test), n_folds, n_test_groups)
    return Split(groups, np.unique(hashes, return_inverse=True)[1], n_folds, shares, seed, n_test_groups)


def warn_if_lopsided(stage: Stage, split: Split) -> None:
    """Warn where a few large documents, or many that share text, give train, val and test other shares than asked."""
    found, asked = split.shares(), (split.wanted.train, split.wanted.val, split.wanted.test)
    if max(abs(share - goal) for share, goal in zip(found, asked, strict=True)) > _LOPSIDED:
        shares = ", ".join(f"{share:.0%}" for share in found)
        stage.warn(
            f"train, val and test hold {shares} of the sequences, for documents are not parted, and those that share "
            "text count as one: look for boilerplate in the text, or use long_documents=truncate"
        )
