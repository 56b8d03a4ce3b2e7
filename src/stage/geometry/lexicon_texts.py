"""What a model reads for analysis=lexicon, found before the model is loaded."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.activations.store import ActivationStore
from src.activations.token_choice import TokenBlock, sequence_tokens, store_tokens
from src.config.geometry.lexicon import WordRepresentation
from src.config.geometry.stage import GeometryConfig
from src.errors import StrataError
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.hypernyms import hypernym_pairs
from src.geometry.words.matching import Matches
from src.geometry.words.occurrences import Occurrences, at_occurrences, find_occurrences
from src.geometry.words.passages import Passages, in_carriers, in_definitions
from src.models import positions_in_config
from src.stage.context import Stage
from src.stage.stores import find_store
from src.text import read_documents, tokenize_documents

# words that must occur for contexts to be compared
_FEWEST_WORDS = 8


@dataclass(frozen=True, eq=False)
class Reading:
    """Passages, and the representations that they give: the points of the first are passages.words, and so on."""

    representations: tuple[WordRepresentation, ...]
    passages: Passages
    store: ActivationStore | None = None

    def digest(self) -> str:
        """sha256 of what is read and taken, in hex."""
        digest, chosen = hashlib.sha256(), self.passages.chosen
        if (sequences := self.passages.sequences) is not None:
            for place in np.unique(chosen.sequence).tolist():
                digest.update(sequences[place].token_ids.tobytes() + b"|")
        for part in (chosen.sequence, chosen.position, chosen.point, self.passages.words):
            digest.update(part.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Texts:
    """All that is read. occurrences: None without contexts."""

    readings: list[Reading]
    occurrences: Occurrences | None

    def identity(self) -> dict[str, Any]:
        """What decides the states besides the model."""
        found = {reading.representations[0]: reading.digest() for reading in self.readings}
        if self.occurrences is not None:
            # all are counted, more than are read: frequencies that the partial correlation holds fixed
            counted = self.occurrences.count.astype(np.int64).tobytes() + f"|{self.occurrences.named}".encode()
            found["counts"] = hashlib.sha256(counted).hexdigest()
        return found


def find_texts(
    config: GeometryConfig,
    stage: Stage,
    taxonomy: Taxonomy,
    matches: Matches,
    tokenizer: PreTrainedTokenizerBase,
) -> Texts:
    """Passages for every representation that needs them. Raises StrataError for one that can't be had."""
    settings = config.lexicon
    wanted = set(settings.representations)
    readings: list[Reading] = []
    occurrences = None
    longest = _longest(config, stage)
    if "carrier" in wanted:
        passages = in_carriers(matches.words, tokenizer, settings.carriers, longest)
        readings.append(Reading(("carrier",), passages))
    if "contexts" in wanted:
        occurrences, reading = _contexts(config, stage, taxonomy, matches, tokenizer, longest)
        readings.append(reading)
    if wanted & {"definition_mean", "definition_last"}:
        definitions = [taxonomy.definitions[sense] for sense in matches.senses]
        passages = in_definitions(matches.words, definitions, tokenizer, settings.definition_template, longest)
        readings.append(Reading(("definition_mean", "definition_last"), passages))
    return Texts(readings, occurrences)


def _longest(config: GeometryConfig, stage: Stage) -> int:
    """Tokens of a text at most: no more than the model has positions for."""
    asked, positions = config.lexicon.max_length, positions_in_config(config.model)
    if positions is None or positions >= asked:
        return asked
    stage.say(f"texts are cut off at {positions} tokens: {config.model.name} has no more positions")
    return positions


def _contexts(
    config: GeometryConfig,
    stage: Stage,
    taxonomy: Taxonomy,
    matches: Matches,
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
) -> tuple[Occurrences, Reading]:
    settings = config.lexicon
    store, sequences = None, None
    blocks: Iterable[TokenBlock]
    if settings.activations is not None:
        store = find_store(stage, settings.activations, config.model, config.dataset)
        blocks, source = store_tokens(store), f"{store.path}"
    else:
        documents = islice(read_documents(config.dataset), settings.documents)
        sequences = list(tokenize_documents(documents, tokenizer, longest))
        blocks, source = sequence_tokens(sequences), f"dataset {config.dataset.dataset_name}"
    found = find_occurrences(blocks, matches.words, kinds_above(taxonomy, matches.senses), settings.contexts)
    n_words = len(np.unique(found.word))
    if n_words < _FEWEST_WORDS:
        raise StrataError(
            f"lexicon.representations: {n_words} of {len(matches.words)} words occur in {source} as single tokens, "
            f"and contexts needs {_FEWEST_WORDS}: choose another dataset, more lexicon.documents, or leave out contexts"
        )
    return found, Reading(("contexts",), at_occurrences(found, matches.words, sequences), store)


def kinds_above(taxonomy: Taxonomy, senses: Sequence[int]) -> dict[int, list[int]]:
    """The words for senses above that of each word."""
    pairs = hypernym_pairs(taxonomy, senses)
    above: dict[int, list[int]] = defaultdict(list)
    for word, ancestor in zip(pairs.word.tolist(), pairs.ancestor.tolist(), strict=True):
        above[word].append(ancestor)
    return above
