"""The examples of train_modulator.py in three shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt64

from src.activations.splits import document_hashes, split_groups
from src.artifacts import Parent
from src.config.modulators.train import TrainModulatorConfig
from src.config.schema import fingerprint
from src.errors import StrataError
from src.geometry.lexicon.sources import read_taxonomy
from src.geometry.words.matching import match_words
from src.models.loading import load_tokenizer
from src.models.token_table import token_table
from src.modulators.training.definitions import defined_words, definition_examples, definition_groups
from src.modulators.training.examples import Example, text_example
from src.stage.context import Stage
from src.stage.sequences import prepare_sequences
from src.text import SequenceTable, content_hashes

Objective = Literal["text", "definitions"]
Shares = tuple[Sequence[Example], Sequence[Example], Sequence[Example]]
_SHARES = ("train", "val", "test")
# of intervals over documents with fewer, little can be said
_FEW_GROUPS = 20


@dataclass(frozen=True, eq=False)
class Examples:
    """Train, val and test examples, the artifacts that they come from, and a digest of those that come from none.

    scored: senses of the words that val and test examples ask for.
    """

    shares: Shares
    parents: list[Parent]
    digest: str | None = None
    scored: frozenset[int] = frozenset()


def prepare_examples(
    config: TrainModulatorConfig, stage: Stage, objective: Objective, encoder_decoder: bool
) -> Examples:
    """Read documents, or definitions of words, and split them by document, or by synset.

    Raises:
        StrataError: too few documents or words; too few examples for a batch.
    """
    found = _definitions(config, stage, encoder_decoder) if objective == "definitions" else _texts(config, stage)
    _refuse_too_few(found.shares, config, objective)
    n_groups = len({example.group for example in found.shares[2]})
    if n_groups < _FEW_GROUPS:
        stage.warn(f"only {n_groups} {_unit(objective)} to test on: intervals are wide, and not to be relied on")
    return found


def _texts(config: TrainModulatorConfig, stage: Stage) -> Examples:
    artifact = prepare_sequences(config, stage)
    table = SequenceTable(artifact.path)
    sequences = table.read(0, table.n_sequences)
    contents = content_hashes((it.token_ids for it in sequences), config.seed)
    hashes = document_hashes(contents, np.array([it.document for it in sequences]))
    documents = np.unique(hashes, return_inverse=True)[1].tolist()
    examples = [text_example(it, document) for it, document in zip(sequences, documents, strict=True)]
    return Examples(_split(examples, hashes, config), [artifact.parent])


def _definitions(config: TrainModulatorConfig, stage: Stage, encoder_decoder: bool) -> Examples:
    taxonomy = read_taxonomy(config.lexicon.taxonomy)
    tokenizer = load_tokenizer(config.model)
    tokens = token_table(tokenizer, max(tokenizer.get_vocab().values()) + 1)
    matched = match_words(taxonomy, tokens, tokenizer, config.lexicon.pos).words
    words = defined_words(taxonomy, matched)
    if not words:
        raise StrataError(
            f"none of the {len(matched)} words of {taxonomy.source} that this tokenizer has is defined there: choose "
            "another lexicon.taxonomy, or objective=text"
        )
    hashes = definition_groups(taxonomy, words, config.seed)
    groups = np.unique(hashes, return_inverse=True)[1].tolist()
    examples = definition_examples(
        taxonomy,
        words,
        groups,
        tokenizer,
        config.definition_template,
        config.max_length,
        encoder_decoder=encoder_decoder,
    )
    stage.say(
        f"{len(words):,} words of {taxonomy.source} are told from their definitions; they are split as "
        f"{len(set(groups)):,} groups, of one synset or of definitions that read the same"
    )
    read = [[ids.tolist() for ids in (it.input_ids, it.predicted, it.target_ids) if ids is not None] for it in examples]
    shares = _split(examples, hashes, config)
    asked = {example.group for example in (*shares[1], *shares[2])}
    scored = frozenset(
        sense for word, group in zip(words, groups, strict=True) if group in asked for sense in word.senses
    )
    return Examples(shares, [], fingerprint({"examples": read}), scored)


def _split(examples: Sequence[Example], hashes: UInt64[np.ndarray, " example"], config: TrainModulatorConfig) -> Shares:
    """Those with a token to predict; no group is in two shares."""
    split = config.split
    groups = split_groups(hashes, (split.train, split.val, split.test), n_folds=1)
    train, val, test = (
        [example for example, group in zip(examples, groups, strict=True) if group == share and example.predicted.any()]
        for share in range(3)
    )
    return train, val, test


def _unit(objective: Objective) -> str:
    return "documents" if objective == "text" else "groups of words"


def _refuse_too_few(shares: Shares, config: TrainModulatorConfig, objective: Objective) -> None:
    source = f"dataset={config.dataset.dataset_name}" if objective == "text" else config.lexicon.taxonomy
    for name, examples in zip(_SHARES, shares, strict=True):
        if not examples:
            raise StrataError(
                f"no {name} example of {source} has a token to predict: take more {_unit(objective)}, or other shares "
                "(split.*)"
            )
    n_train, batch_size = len(shares[0]), config.training.batch_size
    if n_train < batch_size:
        raise StrataError(
            f"{n_train} examples to train on are fewer than training.batch_size={batch_size}: take more "
            f"{_unit(objective)}, a larger split.train, or training.batch_size={n_train}"
        )
