"""The tokens that a user asks for, as points with names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from src.activations.token_choice import ChosenTokens, Place, TokenChoice
from src.config.shared import ModelConfig
from src.config.topology import TopologyConfig
from src.errors import StrataError
from src.models.loading import load_tokenizer
from src.stage.topology.labels import read_labels
from src.text.token_strings import token_strings
from src.text.word_tokens import label_tokens


@dataclass(frozen=True, eq=False)
class Words:
    """Which tokens are meant, and the tokenizer that tells how they read."""

    tokenizer: PreTrainedTokenizerBase
    choice: TokenChoice

    def identity(self, hook: str, layers: Sequence[int]) -> dict[str, Any]:
        """What decides the points."""
        return {"hook": hook, "layers": list(layers), "tokens": _plain(vars(self.choice))}

    def table(self, chosen: ChosenTokens) -> pa.Table:
        """What each point is; of a mean of several, its first token and text."""
        first = np.searchsorted(chosen.point, np.arange(chosen.n_points))
        ids = chosen.token_id[first]
        strings = token_strings(self.tokenizer, {*ids.tolist(), *(int(i) for ids in chosen.context for i in ids)})
        label = [chosen.labels[place] if place >= 0 else None for place in chosen.label]
        return pa.table(
            {
                "sequence": pa.array(chosen.sequence[first], pa.int64()),
                "position": pa.array(chosen.position[first], pa.int64()),
                "token_id": pa.array(ids, pa.int64()),
                "text": pa.array([strings[token].strip() or repr(strings[token]) for token in ids.tolist()]),
                "context": pa.array(["".join(strings[int(token)] for token in some) for some in chosen.context]),
                "label": pa.array(label, pa.string()),
                "label_index": pa.array(chosen.label, pa.int64()),
                "n_tokens": pa.array(np.bincount(chosen.point), pa.int64()),
            }
        )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"labels": [list(pair) for pair in values["labels"]]}


def words_of(config: TopologyConfig, model: ModelConfig) -> Words:
    """What the config says of tokens, in the words of a model's tokenizer.

    Raises:
        StrataError: a word that is no token, or a file of labels that can't be read.
    """
    tokenizer = load_tokenizer(model)
    place: Place
    labels: tuple[tuple[int, str], ...] = ()
    index = 0
    if isinstance(config.tokens, list):
        place, labels = "label", label_tokens(tokenizer, {word: word for word in config.tokens})
    elif isinstance(config.tokens, int):
        place, index = "index", config.tokens
    else:
        place = config.tokens
    if config.labels is not None:
        labels = label_tokens(tokenizer, read_labels(Path(config.labels).expanduser()))
    contexts = None if config.contexts == "all" else config.contexts
    choice = TokenChoice(place, index, labels, contexts, config.n_points, config.seed)
    return Words(tokenizer, choice)


def wanted_layers(config: TopologyConfig, n_layers: int, name: str) -> list[int]:
    """The layers that the config asks for, in order; StrataError for one that the model does not have."""
    if config.layers == "all":
        return list(range(n_layers))
    layers = [config.layers] if isinstance(config.layers, int) else sorted(set(config.layers))
    if beyond := [layer for layer in layers if layer >= n_layers]:
        raise StrataError(f"layers={beyond}: {name} has layers 0..{n_layers - 1}")
    return layers


def label_words(config: TopologyConfig) -> list[str]:
    """Words for the name of an artifact."""
    tokens = config.tokens
    what = "-".join(dict.fromkeys([tokens[0], tokens[-1]])) if isinstance(tokens, list) else str(tokens)
    if config.labels is not None:
        what = Path(config.labels).stem
    hook = [] if config.hook == "resid_post" else [config.hook]
    return [what, *hook]


def tokens_in_words(config: TopologyConfig) -> str:
    """The choice of tokens, for readers."""
    tokens = config.tokens
    if isinstance(tokens, list):
        what = f"tokens {', '.join(tokens[:3])}{', ...' if len(tokens) > 3 else ''}"
    elif isinstance(tokens, int):
        what = f"counted token {tokens} of each text"
    else:
        what = {
            "last": "last token of each text",
            "first": "first token of each text",
            "cls": "position 0 of each text",
            "mean": "mean over each text",
            "max": "maximum over each text",
            "all": "any token",
            "label": f"tokens with a label of {Path(config.labels or '').name}",
        }[tokens]
    if config.contexts == "all":
        return f"{what}, the mean over all of each label"
    return what if config.contexts == 1 else f"{what}, means over {config.contexts}"
