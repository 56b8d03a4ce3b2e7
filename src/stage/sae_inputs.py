"""What train_sae.py trains on: a store or a table of text, its documents in three shares, and the model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from src.activations.job import chosen_layers, refuse_long_sequences
from src.activations.splits import document_hashes, split_groups
from src.artifacts import Artifact, label
from src.config.train_sae import TrainSaeConfig
from src.errors import StrataError
from src.features.training.row_sources import ModelRows, RowSource, StoreRows, counted_tokens, draw_documents
from src.features.training.trainer import TrainingSettings
from src.hook_points import HookPoint
from src.models import LanguageModel, load_model
from src.stage.context import Stage
from src.stage.models import load_model_of
from src.stage.sequences import prepare_sequences
from src.stage.stores import find_store, split_store, warn_if_lopsided
from src.text import Keep, SequenceTable, TokenSequence, content_hashes

_READ_SEQUENCES = 4096
_VAL_SHARE = 5  # evaluations on the way take so much less text than the one at the end


@dataclass(frozen=True, eq=False)
class TrainingWork:
    """All that training needs, checked.

    source: the artifact that rows or text come from. train, val, test: rows of each share; of val and test, those of
    documents drawn for evaluation. model: loads it, once.
    """

    config: TrainSaeConfig
    settings: TrainingSettings
    points: tuple[HookPoint, ...]
    d_model: int
    source: Artifact
    train: RowSource
    val: RowSource
    test: RowSource
    model: Callable[[], LanguageModel]

    @property
    def label(self) -> str:
        """Of the artifact's name."""
        which = f"L{self.points[0].layer}" if len(self.points) == 1 else f"{len(self.points)}-layers"
        return label(self.config.model.name, self.config.architecture, self.config.hook, which)

    def identity(self) -> dict[str, Any]:
        """What decides the SAEs and their scores beside the artifact that rows come from, for the fingerprint."""
        config = self.config
        keys = {"source", "tokens", "batch_size", "lr", "warm_up", "decay", "normalize_activations", "b_dec_init"}
        keys |= {"buffer_tokens", "dead_feature_window", "dtype", "storage_dtype", "architecture", "seed", "split"}
        keys |= {"evaluate_every", "eval_tokens", "loss_recovered"}
        # a store knows its model; in other batches a model rounds otherwise
        model = {"model": self.model().identity()} if config.source == "model" else {}
        runs_model = config.source == "model" or config.loss_recovered
        return {
            **config.model_dump(mode="json", include=keys),
            **({"sequences_per_pass": config.sequences_per_pass} if runs_model else {}),
            **model,
            "points": [str(point) for point in self.points],
            "d_sae": self.settings.d_sae,
            "keys": dict(self.settings.keys),
        }


def prepare_training(config: TrainSaeConfig, stage: Stage) -> TrainingWork:
    """Find the store, or read the text, and split it by document.

    Raises:
        StrataError: no store, or none with these layers; a width that can't be; too little text for the shares.
    """
    return _from_store(config, stage) if config.source == "store" else _from_model(config, stage)


def _from_store(config: TrainSaeConfig, stage: Stage) -> TrainingWork:
    store = find_store(stage, config.activations, config.model, config.dataset)
    layout = store.layout
    layers = chosen_layers(config.layers, layout.n_layers, store.model_name)
    points = tuple(HookPoint(config.hook, layer) for layer in layers)
    if config.layers == "all":
        points = tuple(point for point in points if point in layout.hook_points) or points
    store.require(points)
    settings = _settings(config, layout.d_model, str(store.artifact.meta.config["dataset"]["dataset_name"]))
    split = split_store(store, config.split, 1, config.seed)
    warn_if_lopsided(stage, split)
    counted = [np.add.reduceat(part.keep == Keep.COUNTED, part.sequence_start[:-1], dtype=np.int64) for part in store]
    chosen = _shares(config, split.groups, split.documents, np.concatenate(counted))
    train, val, test = (StoreRows(store, points, each, split.documents) for each in chosen)
    model = cache(lambda: load_model_of(store, config.model, stage))
    return TrainingWork(config, settings, points, layout.d_model, store.artifact, train, val, test, model)


def _from_model(config: TrainSaeConfig, stage: Stage) -> TrainingWork:
    sequences = prepare_sequences(config, stage)
    table = SequenceTable(sequences.path)
    model = load_model(config.model, stage.device)
    refuse_long_sequences(model, table)
    layers = chosen_layers(config.layers, model.n_layers, config.model.name)
    points = tuple(HookPoint(config.hook, layer) for layer in layers)
    settings = _settings(config, model.d_model, config.dataset.dataset_name)
    blocks = list(range(0, table.n_sequences, _READ_SEQUENCES))

    def read(start: int) -> list[TokenSequence]:
        return table.read(start, min(start + _READ_SEQUENCES, table.n_sequences))

    contents = np.concatenate([content_hashes((it.token_ids for it in read(start)), config.seed) for start in blocks])
    document = np.array([it.document for it in chain.from_iterable(map(read, blocks))])
    hashes = document_hashes(contents, document)
    groups = split_groups(hashes, (config.split.train, config.split.val, config.split.test), 1)
    documents = np.unique(hashes, return_inverse=True)[1]
    chosen = _shares(config, groups, documents, counted_tokens(table, table.n_sequences))
    train, val, test = (ModelRows(model, table, points, each, documents, config.sequences_per_pass) for each in chosen)
    return TrainingWork(config, settings, points, model.d_model, sequences, train, val, test, lambda: model)


def _shares(
    config: TrainSaeConfig,
    groups: Int[np.ndarray, " sequence"],
    documents: Int[np.ndarray, " sequence"],
    counted: Int[np.ndarray, " sequence"],
) -> list[Bool[np.ndarray, " sequence"]]:
    """All sequences of train (group 0), and those drawn of val (1) and test (2)."""
    wanted = ((1, -(-config.eval_tokens // _VAL_SHARE)), (2, config.eval_tokens))
    return [
        groups == 0,
        *(draw_documents(groups == group, documents, counted, n_tokens, config.seed) for group, n_tokens in wanted),
    ]


def _settings(config: TrainSaeConfig, d_model: int, dataset: str) -> TrainingSettings:
    d_sae = config.width(d_model)
    if config.k is not None and config.k >= d_sae:
        raise StrataError(f"k={config.k:g} must be below the number of features, {d_sae} (d_sae, expansion_factor)")
    return TrainingSettings(
        d_sae=d_sae,
        keys=config.architecture_keys(d_sae),
        metadata={"model_name": config.model.name, "dataset_path": dataset},
        **config.model_dump(
            include={
                *("architecture", "tokens", "batch_size", "lr", "warm_up", "decay", "normalize_activations"),
                *("b_dec_init", "dead_feature_window", "dtype", "seed"),
            }
        ),
    )
