"""Token ids of many texts that begin alike, each character tokenised about once."""

from bisect import bisect_right

from transformers.tokenization_utils_base import PreTrainedTokenizerBase


class SharedText:
    """Tokenises texts that begin like one text, with the ids that the tokenizer gives for each alone.

    Fast tokenizers cut a text at its added tokens (<|im_end|>), and what lies between them is tokenised piece by piece.
    So the tokens up to the end of an added token that two texts share are the same in both, and what follows it is
    tokenised as behind that token alone. Where that does not apply, a text is tokenised as a whole.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        self._tokenizer, self._text = tokenizer, text
        self._tails: dict[tuple[str, str], list[int] | None] = {}
        self._ends: list[int] = []  # of added tokens, in characters
        self._counts: list[int] = []  # tokens up to there
        self._anchors: list[str] = []
        if not tokenizer.is_fast:
            self._ids = self._alone(text)
            return
        encoding = self._encoded(text)
        self._ids = encoding["input_ids"]
        added = tokenizer.added_tokens_decoder
        for place, (token, (start, end)) in enumerate(zip(self._ids, encoding["offset_mapping"], strict=True)):
            if token in added and start < end:
                self._ends.append(end)
                self._counts.append(place + 1)
                self._anchors.append(text[start:end])

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without tokens that a tokenizer puts around it."""
        if text == self._text:
            return self._ids
        place = bisect_right(self._ends, _n_common(text, self._text)) - 1
        if place < 0:
            return self._alone(text)
        tail = self._behind(self._anchors[place], text[self._ends[place] :])
        return self._alone(text) if tail is None else [*self._ids[: self._counts[place]], *tail]

    def _behind(self, anchor: str, text: str) -> list[int] | None:
        """The tokens of a text that follows an added token; None if that token does not end where it did."""
        if (anchor, text) not in self._tails:
            encoding = self._encoded(anchor + text)
            apart = encoding["offset_mapping"][0] == (0, len(anchor))
            self._tails[anchor, text] = encoding["input_ids"][1:] if apart else None
        return self._tails[anchor, text]

    def _encoded(self, text: str) -> dict:
        return self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )  # pyright: ignore[reportReturnType]

    def _alone(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def _n_common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning, by bisection."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
