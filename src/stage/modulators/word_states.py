"""A model's residual states of the words that modulators begin with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.clouds import clouds_of_model
from src.activations.token_choice import sequence_tokens
from src.errors import StrataError
from src.geometry.words.matching import Word
from src.geometry.words.occurrences import at_occurrences, find_occurrences
from src.geometry.words.passages import DEFINITION, WORD, Passages, in_carriers
from src.hook_points import HookPoint
from src.models.loading import load_tokenizer
from src.modulators.training.examples import Example
from src.stage.context import Stage
from src.stage.modulators.work import ModulatorWork
from src.text import Keep, TokenSequence

# occurrences of a word that are averaged
_PER_WORD = 32
# numbers of float64 that all layers of one pass may hold: 1 GiB
_AT_ONCE = 1 << 27


@dataclass(frozen=True, eq=False)
class WordStates:
    """Mean inputs of the chosen blocks at words, each layer in units of its anchors' root mean square length.

    Without these units the late layers, whose states are long, would decide alone (BUG G-6). words: places of those
    that were read among the words asked for; those below n_anchors are anchors. mean: over layers. by_layer: the
    anchors' mean, and the rows of the other words. lengths: the units.
    """

    words: Int[np.ndarray, " word"]
    mean: Float[Tensor, "word d_model"]
    by_layer: Mapping[int, tuple[Float[Tensor, " d_model"], Float[Tensor, "other d_model"]]]
    lengths: Mapping[int, float]


def read_word_states(work: ModulatorWork, stage: Stage, words: Sequence[Word], n_anchors: int) -> WordStates:
    """Read words where they stand in the training examples (first occurrences), or where the prompt has the definition.

    Nothing of val and test examples is read.

    Raises:
        StrataError: too few of the anchors occur, or a state that is not finite.
    """
    passages = _in_prompts(work, words) if work.objective == "definitions" else _in_texts(work.train, words)
    n_read = int((passages.words < n_anchors).sum())
    # a rotation of fewer is no better than chance
    if n_read < 8 or n_read == len(passages.words):
        raise StrataError(
            f"modulator.init=lexicon: {n_read} of {n_anchors} anchors and {len(passages.words) - n_read} of "
            f"{len(words) - n_anchors} evaluated words occur in the training examples, and 8 and 1 are needed: take "
            "more text, another lexicon.taxonomy, or modulator.init=relational"
        )
    assert passages.sequences is not None
    height = max(1, _AT_ONCE // (len(passages.words) * work.model.d_model))
    total = torch.zeros(len(passages.words), work.model.d_model, dtype=torch.float64)
    n_tokens = sum(len(passages.sequences[i].token_ids) for i in np.unique(passages.chosen.sequence))
    by_layer, lengths = {}, {}
    groups = [work.layers[first : first + height] for first in range(0, len(work.layers), height)]
    with stage.progress("reading words", n_tokens * len(groups), "tokens") as advance:
        for layers in groups:
            points = [HookPoint("resid_pre", layer) for layer in layers]
            batch_size = work.config.training.batch_size
            clouds = clouds_of_model(work.model, passages.sequences, points, passages.chosen, batch_size, advance)
            for point in points:
                rows = torch.from_numpy(clouds[point])
                length = rows[:n_read].double().square().sum(1).mean().sqrt()
                rows = rows / length.clamp_min(torch.finfo(torch.float32).tiny).float()
                total += rows
                by_layer[point.layer] = (rows[:n_read].mean(0), rows[n_read:])
                lengths[point.layer] = float(length)
    return WordStates(passages.words, total / len(work.layers), by_layer, lengths)


def _in_texts(examples: Sequence[Example], words: Sequence[Word]) -> Passages:
    # what is not predicted is special, or has nothing before it: a state like no other
    sequences = [
        TokenSequence(place, each.input_ids, np.where(each.predicted, Keep.COUNTED, Keep.SPECIAL).astype(np.uint8))
        for place, each in enumerate(examples)
    ]
    found = find_occurrences(sequence_tokens(sequences), words, {}, _PER_WORD)
    return at_occurrences(found, words, sequences)


def _in_prompts(work: ModulatorWork, words: Sequence[Word]) -> Passages:
    config = work.config
    carrier = config.definition_template.replace(DEFINITION, WORD)
    return in_carriers(words, load_tokenizer(config.model), [carrier], config.max_length)
