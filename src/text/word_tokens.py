"""The tokens that words are: for users who name tokens by their text."""

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from src.errors import NotApplicableError, StrataError


def label_tokens(tokenizer: PreTrainedTokenizerBase, label_of_word: Mapping[str, str]) -> tuple[tuple[int, str], ...]:
    """The label of each token whose text is one of the words, with or without a space in front, in the words' order.

    Raises:
        StrataError: a word that is no single token of this tokenizer, or two words of different labels that are one.
    """
    labels: dict[int, str] = {}
    for word, label in label_of_word.items():
        for token in word_tokens(tokenizer, word):
            if labels.setdefault(token, label) != label:
                raise StrataError(f"{word!r} is the same token as another word, and they have different labels")
    return tuple(labels.items())


def word_tokens(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """The tokens that are this word: at the start of a text, and behind a space.

    Raises:
        NotApplicableError: the word is unknown to the tokenizer, or several tokens.
    """
    spellings = [tokenizer.encode(text, add_special_tokens=False) for text in (word, f" {word}")]
    unknown = tokenizer.unk_token_id
    tokens = [ids[0] for ids in spellings if len(ids) == 1 and ids[0] != unknown]
    if not tokens:
        pieces = tokenizer.convert_ids_to_tokens(spellings[-1])
        what = "unknown to it" if unknown in spellings[-1] or not pieces else f"{len(pieces)} tokens ({pieces})"
        raise NotApplicableError(
            f"{word!r} is no single token of this tokenizer: it is {what}. Choose other words, or give texts that end "
            "with it (prompts=FILE tokens=last)"
        )
    return list(dict.fromkeys(tokens))
