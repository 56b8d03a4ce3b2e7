"""The states of reference texts, many texts in one pass."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.errors import StrataError
from src.models import LanguageModel
from src.models.continuing import logits_agree
from src.scenarios.capturing.arrays import Arrays, averaged, joined, picked
from src.scenarios.capturing.keeping import Keeper
from src.scenarios.capturing.passes import Reader
from src.scenarios.capturing.places import Wanted, find_places
from src.scenarios.capturing.templates import Renderer, TemplateRefusal, readable, wanted_state
from src.scenarios.scenario import CaptureSettings, ReferenceState
from src.scenarios.states import LOGITS, References, ReferenceText, SpokenMessage

# tokens of one pass, padding included
_CPU_TOKENS, _GPU_TOKENS = 2**11, 2**14


@dataclass(frozen=True)
class _Text:
    """A reference text: what is read of it, in one sequence or in several, and where its states are."""

    ids: list[list[int]]
    wanted: list[Wanted]


def capture_references(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    references: list[ReferenceState],
    capture: CaptureSettings,
) -> References:
    """The states of reference texts at the positions of `capture`; mean: over the tokens of a text's last message.

    Texts of like length are read together, padded on the right; one by one if the model does not keep padding apart.

    Raises:
        StrataError: a text that the chat template refuses or that has no token, and as `capture_conversation`.
    """
    texts, wanted = [], []
    for reference in references:
        for example, messages in enumerate(reference.conversations):
            spoken = [SpokenMessage(message.role, readable(message.content), message.label) for message in messages]
            states = _wanted(Renderer(tokenizer), spoken, capture.positions, f"reference state {reference.label!r}")
            n_tokens = max(len(state.ids) for state in states)
            texts.append(ReferenceText(reference.label, example, reference.neutral, spoken[-1].content[:80], n_tokens))
            wanted += states
    if not texts:
        return References([], {})
    with Reader(model, capture) as reader:
        states = _read(reader, wanted)
        rows = {}
        for place, position in enumerate(capture.positions):
            keeper = Keeper(reader.layers, getattr(torch, capture.store_dtype))
            chosen = picked(states, range(place, len(wanted), len(capture.positions)))
            keeper.add({name: array for name, array in chosen.items() if name != LOGITS or capture.logits})
            rows[position] = keeper.rows()
    return References(texts, rows)


def _wanted(renderer: Renderer, messages: Sequence[SpokenMessage], positions: Sequence[str], what: str) -> list[Wanted]:
    """A state for each position of the last message."""
    try:
        end = renderer.ids(messages, False) if set(positions) != {"answer"} else None
        answer = renderer.ids(messages, True) if "answer" in positions else None
        before = renderer.ids(messages[:-1], False) if "mean" in positions and len(messages) > 1 else []
    except TemplateRefusal as refusal:
        raise StrataError(
            f"{what}: the chat template of the model does not take this text ({refusal}): change its roles, or choose "
            "another model"
        ) from None
    found = [wanted_state(end or None, answer or None, before, position) for position in positions]
    states = [state for state in found if state is not None]
    if len(states) < len(positions):
        raise StrataError(f"{what}: a text has no tokens: give its messages a content")
    return states


def _read(reader: Reader, wanted: Sequence[Wanted]) -> Arrays:
    """A row for each state, from as few passes as there are texts that are no beginning of another."""
    known = reader.known
    places, branches = find_places([], wanted, known.causal, cached=False)
    tokens: list[list[int]] = [[] for _ in branches]
    for place in places:
        tokens[place.branch or 0] = sorted({*tokens[place.branch or 0], *place.tokens})
    order = sorted(range(len(branches)), key=lambda number: len(branches[number].ids))
    parts = [
        _pass(reader, [branches[i].ids for i in group], [tokens[i] for i in group])
        for group in _groups(reader, [len(branches[i].ids) for i in order], order)
    ]
    first, row = 0, {}
    for number in order:
        row |= {(number, token): first + index for index, token in enumerate(tokens[number])}
        first += len(tokens[number])
    groups = [[row[place.branch or 0, token] for token in place.tokens] for place in places]
    return averaged(joined(parts), groups)


def _groups(reader: Reader, lengths: Sequence[int], order: Sequence[int]) -> list[list[int]]:
    """Texts of like length, in ascending order; each group is one pass."""
    limit = _CPU_TOKENS if reader.model.device.type == "cpu" else _GPU_TOKENS
    groups: list[list[int]] = []
    for number, length in zip(order, lengths, strict=True):
        if reader.known.padded and groups and (len(groups[-1]) + 1) * length <= limit:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def _pass(reader: Reader, texts: Sequence[list[int]], wanted: Sequence[Sequence[int]]) -> Arrays:
    if len(texts) == 1 or not reader.known.padded:
        return joined([reader.read(ids, rows) for ids, rows in zip(texts, wanted, strict=True)])
    arrays = reader.padded(texts, wanted)
    longest = max(map(len, texts))
    if longest > reader.known.checked_padding:
        reader.known.checked_padding = longest
        alone = reader.read(texts[0], wanted[0])[LOGITS][0]
        if not logits_agree(arrays[LOGITS][0, : len(alone)], alone):
            warnings.warn(
                f"{type(reader.model.module).__name__} gives other numbers for padded texts: references are read one "
                "by one",
                stacklevel=2,
            )
            reader.known.padded = False
            return _pass(reader, texts, wanted)
    return arrays
