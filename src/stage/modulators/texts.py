"""The examples of train_modulator.py in three shares."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from src.activations.splits import document_hashes, split_groups
from src.artifacts import Parent
from src.config.modulators.train import TrainModulatorConfig
from src.errors import StrataError
from src.modulators.training.examples import Example, text_example
from src.stage.context import Stage
from src.stage.sequences import prepare_sequences
from src.text import SequenceTable, content_hashes

Shares = tuple[Sequence[Example], Sequence[Example], Sequence[Example]]


def prepare_examples(
    config: TrainModulatorConfig, stage: Stage, objective: Literal["text", "definitions"]
) -> tuple[Shares, list[Parent]]:
    """Train, val and test, and the artifacts that they come from.

    Raises:
        StrataError: too few documents; none with a token to predict.
    """
    if objective == "definitions":
        raise StrataError("objective=definitions is not there yet")
    artifact = prepare_sequences(config, stage)
    table = SequenceTable(artifact.path)
    sequences = table.read(0, table.n_sequences)
    hashes = document_hashes(
        content_hashes((it.token_ids for it in sequences), config.seed), np.array([it.document for it in sequences])
    )
    documents = np.unique(hashes, return_inverse=True)[1]
    split = config.split
    groups = split_groups(hashes, (split.train, split.val, split.test), n_folds=1)
    examples = [text_example(it, int(document)) for it, document in zip(sequences, documents, strict=True)]
    train, val, test = (
        [example for example, group in zip(examples, groups, strict=True) if group == share and example.predicted.any()]
        for share in range(3)
    )
    return (train, val, test), [artifact.parent]
