"""The words of lexicon.*: those that tokens' vectors are made from, and those that evaluation is on."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from src.config.modulators.modulator import AnchorsConfig
from src.config.schema import fingerprint
from src.config.shared import ModelConfig
from src.geometry.lexicon.sources import read_taxonomy
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.matching import match_words
from src.models.loading import load_tokenizer
from src.models.token_table import token_table
from src.modulators.beginning.words import WordSplit, split_words, without_anchors


@dataclass(frozen=True, eq=False)
class Lexicon:
    """A taxonomy, and its words on either side."""

    taxonomy: Taxonomy
    split: WordSplit

    @property
    def digest(self) -> str:
        """Of the taxonomy, the words on either side and their tokens."""
        sides = {
            name: [[word.text, word.token_ids[0], *word.senses] for word in getattr(self.split, name)]
            for name in _SIDES
        }
        return fingerprint({"taxonomy": self.taxonomy.source, **sides})

    def without_anchors(self, senses: Collection[int]) -> Self:
        """With no anchor that has one of these senses. Raises NotApplicableError if too few are left."""
        return replace(self, split=without_anchors(self.taxonomy, self.split, senses))


def prepare_lexicon(config: AnchorsConfig, model_config: ModelConfig, seed: int) -> Lexicon:
    """Read the taxonomy, match it with the model's tokenizer, and split the words; loads no weights.

    The same keys and seed give the same words, so evaluation finds those that no vector was made from.

    Raises:
        StrataError: no such taxonomy, or one that can't be read. NotApplicableError: too few words match.
    """
    taxonomy = read_taxonomy(config.taxonomy)
    tokenizer = load_tokenizer(model_config)
    tokens = token_table(tokenizer, max(tokenizer.get_vocab().values()) + 1)
    # words of several tokens have no row in a table of tokens
    matches = match_words(taxonomy, tokens, tokenizer, config.pos, enough=0)
    split = split_words(taxonomy, matches, config.held_out, config.max_anchors, seed)
    return Lexicon(taxonomy, split)


_SIDES = ("anchors", "evaluated", "others")
