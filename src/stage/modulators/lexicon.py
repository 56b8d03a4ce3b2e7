"""The words of lexicon.*: those that tokens' vectors are made from, and those that evaluation is on."""

from dataclasses import dataclass

from src.config.modulators.modulator import AnchorsConfig
from src.config.schema import fingerprint
from src.config.shared import ModelConfig
from src.geometry.lexicon.sources import read_taxonomy
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.matching import match_words
from src.models.loading import load_tokenizer
from src.models.token_table import token_table
from src.modulators.beginning.words import WordSplit, split_words


@dataclass(frozen=True, eq=False)
class Lexicon:
    """digest: of the taxonomy, the words on either side and their tokens."""

    taxonomy: Taxonomy
    split: WordSplit
    digest: str


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
    sides = {name: [[word.text, word.token_ids[0], *word.senses] for word in getattr(split, name)] for name in _SIDES}
    return Lexicon(taxonomy, split, fingerprint({"taxonomy": taxonomy.source, **sides}))


_SIDES = ("anchors", "evaluated", "others")
