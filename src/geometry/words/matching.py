"""Which words of a taxonomy a tokenizer has, and what each of them means (spec D1)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.errors import NotApplicableError
from src.geometry.lexicon.taxonomy import Taxonomy, WordSense
from src.models.token_table import TokenTable

PartOfSpeech = Literal["n", "v"]
NAMES_OF_POS: Mapping[PartOfSpeech, str] = {"n": "nouns", "v": "verbs"}
# fewer say little, and are no reason to stop while there are two distances to compare
FEWEST_WORDS = 8
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Word:
    """A word of the taxonomy that the model has tokens for.

    text: as in the taxonomy, lower case. surface: as the tokens spell it. token_ids: its tokens inside a text.
    senses: its meanings in this part of speech, the chosen one first. count: of that one in tagged text.
    """

    text: str
    surface: str
    token_ids: tuple[int, ...]
    senses: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Matches:
    """The matched words, the most frequent first. n_found: before the limit on their number.

    n_pieces: how many of them are several tokens. uncounted: the share of words that the tagged text does not have
    with any sense: in a vocabulary of many languages words of another one match by accident.
    """

    words: tuple[Word, ...]
    n_found: int
    n_pieces: int
    uncounted: float

    @property
    def senses(self) -> list[int]:
        """The chosen sense of each word."""
        return [word.senses[0] for word in self.words]


def match_words(
    taxonomy: Taxonomy,
    tokens: TokenTable,
    tokenizer: PreTrainedTokenizerBase,
    pos: PartOfSpeech = "n",
    *,
    min_count: int = 0,
    max_words: int | None = None,
    enough: int = 200,
) -> Matches:
    """Look up every token of a vocabulary that is a word by itself, and take the word's most frequent sense.

    A token counts if its text is letters alone and is encoded as that token alone. Of several tokens for one word (with
    a space in front or none, capitals) the one that begins a word in lower case is taken. Of the senses in this part of
    speech the one with the highest count is taken, and among equals the first (BUG D-1: the first in the order of the
    database's files is a rare one for half of the words, and mostly an adjective).

    Args:
        taxonomy: the words and their senses.
        tokens: the vocabulary.
        tokenizer: of the same model.
        pos: nouns or verbs. They are not mixed: no path leads from one to the other.
        min_count: the least count of a word's chosen sense in tagged text.
        max_words: keep the most frequent ones.
        enough: with fewer words of one token, words of several tokens are taken too.

    Raises:
        NotApplicableError: too few words match.
    """
    meant = {
        word: senses for word, all_senses in taxonomy.words.items() if (senses := _of_pos(taxonomy, all_senses, pos))
    }
    found = {word: (surface, (token,)) for word, (surface, token) in _single_tokens(tokens, tokenizer, meant).items()}
    if len(found) < enough:
        found |= _several_tokens(tokenizer, [word for word in meant if word not in found])
    words = []
    for word, (surface, token_ids) in found.items():
        chosen = max(meant[word], key=lambda sense: (sense.count, -sense.number))
        others = [sense.sense for sense in meant[word] if sense.sense != chosen.sense]
        if chosen.count >= min_count:
            words.append(Word(word, surface, token_ids, (chosen.sense, *others), chosen.count))
    words.sort(key=lambda word: (-word.count, word.text))
    kept = tuple(words[:max_words])
    if len(kept) < FEWEST_WORDS:
        raise NotApplicableError(
            f"{len(kept)} {NAMES_OF_POS[pos]} of the taxonomy ({taxonomy.source}) are words of this tokenizer, and "
            f"{FEWEST_WORDS} are needed: choose another taxonomy (lexicon.taxonomy=wordnet for English), or another "
            "lexicon.pos"
        )
    pieces = sum(len(word.token_ids) > 1 for word in kept)
    return Matches(kept, len(words), pieces, sum(word.count == 0 for word in kept) / len(kept))


def _of_pos(taxonomy: Taxonomy, senses: Sequence[WordSense], pos: PartOfSpeech) -> list[WordSense]:
    return [sense for sense in senses if taxonomy.pos[sense.sense] == pos]


def _single_tokens(
    tokens: TokenTable, tokenizer: PreTrainedTokenizerBase, wanted: Mapping[str, object]
) -> dict[str, tuple[str, int]]:
    """The token that is each of the wanted words, with its spelling."""
    spelled = [(int(token), tokens.texts[token]) for token in tokens.counted]
    candidates = [
        (token, text) for token, text in spelled if _LETTERS.fullmatch(text.strip()) and text.strip().lower() in wanted
    ]
    if not candidates:
        return {}
    encoded = tokenizer([text for _, text in candidates], add_special_tokens=False)["input_ids"]
    best: dict[str, tuple[tuple[bool, bool, int], str, int]] = {}
    for (token, text), ids in zip(candidates, encoded, strict=True):
        surface = text.strip()
        # some tokenizers set a word boundary of its own in front
        if [piece for piece in ids if tokens.texts[piece].strip("\u2581 ")] != [token]:
            continue
        rank = (not bool(tokens.initial[token]), surface != surface.lower(), token)
        word = surface.lower()
        if word not in best or rank < best[word][0]:
            best[word] = (rank, surface, token)
    return {word: (surface, token) for word, (_, surface, token) in best.items()}


def _several_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Words of the taxonomy with all their tokens, as inside a text; those with unknown pieces are left out."""
    plain = [word for word in words if all(_LETTERS.fullmatch(part) for part in word.split())]
    if not plain:
        return {}
    encoded = tokenizer([f" {word}" for word in plain], add_special_tokens=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    return {word: (word, tuple(ids)) for word, ids in zip(plain, encoded, strict=True) if ids and unknown not in ids}
