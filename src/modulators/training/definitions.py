"""Words to be told from their definitions (spec G9)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, UInt64
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.activations.splits import document_hashes
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.matching import Word
from src.geometry.words.passages import DEFINITION
from src.modulators.training.examples import Example
from src.text import content_hashes


def defined_words(taxonomy: Taxonomy, words: Sequence[Word]) -> list[Word]:
    """Those whose sense (the first of each) has a definition."""
    return [word for word in words if taxonomy.definitions[word.senses[0]].strip()]


def definition_groups(taxonomy: Taxonomy, words: Sequence[Word], seed: int) -> UInt64[np.ndarray, " word"]:
    """The same hash for words that must stay together, for `split_groups`.

    Together belong words of one synset, and words whose definitions read the same (BUG G-10), over any number of
    steps. words: from `defined_words`.
    """
    senses = np.array([word.senses[0] for word in words])
    texts = (" ".join(_definition(taxonomy, word).lower().split()) for word in words)
    contents = content_hashes((np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts), seed)
    return document_hashes(contents, senses)


def definition_examples(
    taxonomy: Taxonomy,
    words: Sequence[Word],
    groups: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_length: int,
    *,
    encoder_decoder: bool,
) -> list[Example]:
    """One example for each word: its definition, in the template, is read, and the word is to be told.

    An encoder-decoder reads the prompt as its tokenizer writes a text, and answers with the word as its tokenizer
    writes a target, the end included. Any other model goes on with the prompt: only the tokens of the word count.

    Args:
        taxonomy: has the definitions.
        words: from `defined_words`.
        groups: of each word.
        tokenizer: of the model.
        template: the prompt, with {definition}.
        max_length: tokens of a prompt at most; of a longer definition the end is left out.
        encoder_decoder: which of the two kinds of model it is.
    """
    examples = []
    for word, group in zip(words, groups, strict=True):
        prompt = _prompt(_definition(taxonomy, word), tokenizer, template, max_length, closed=encoder_decoder)
        if encoder_decoder:
            target = np.array(tokenizer(text_target=word.surface)["input_ids"], np.int32)
            examples.append(Example(prompt, np.ones(len(target), bool), group, target))
        else:
            whole = np.concatenate([prompt, np.array(word.token_ids, np.int32)])
            # nothing stands before the first token that could predict it
            predicted = np.arange(len(whole)) >= max(1, len(prompt))
            examples.append(Example(whole, predicted, group))
    return examples


def _definition(taxonomy: Taxonomy, word: Word) -> str:
    return taxonomy.definitions[word.senses[0]].strip()


def _prompt(
    definition: str, tokenizer: PreTrainedTokenizerBase, template: str, max_length: int, closed: bool
) -> Int32[np.ndarray, " token"]:
    """Tokens of the template around as much of the definition as fits; closed: with what ends a text."""
    before, _, after = template.partition(DEFINITION)
    text = f"{before}{definition}{after}"
    ids = _tokens(text, tokenizer, closed)
    words = definition.split()
    while len(ids) > max_length and len(words) > 1:
        # the template's end is what asks for the word: it stays
        words = words[: max(1, len(words) - (len(ids) - max_length + 3) // 4)]
        ids = _tokens(f"{before}{' '.join(words)}{after}", tokenizer, closed)
    return np.array(ids, np.int32)


def _tokens(text: str, tokenizer: PreTrainedTokenizerBase, closed: bool) -> list[int]:
    ids = [int(token) for token in tokenizer(text)["input_ids"]]
    ends = [token for token in tokenizer.all_special_ids if token != tokenizer.unk_token_id]
    while not closed and ids and ids[-1] in ends:
        ids.pop()
    return ids
