"""Where clouds come from: an activation store, a model that reads prompts, or files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from src.activations.clouds import Clouds, clouds_of_model, clouds_of_store
from src.activations.store import ActivationStore
from src.activations.token_choice import (
    ChosenTokens,
    Place,
    TokenChoice,
    choose_tokens,
    sequence_tokens,
    store_tokens,
)
from src.artifacts import Parent, content_digest
from src.config.shared import ModelConfig
from src.config.topology import TopologyConfig
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import layers_in_config, load_model, load_random_model
from src.models.loading import load_tokenizer
from src.stage.context import Stage
from src.stage.stores import find_store
from src.stage.topology.cloud_files import find_cloud_files, read_clouds, read_point_names
from src.stage.topology.labels import read_labels
from src.stage.topology.prompts import read_prompts, tokenize_prompts
from src.text import TokenSequence
from src.text.token_strings import token_strings
from src.text.word_tokens import label_tokens


@dataclass(frozen=True, eq=False)
class Cloud:
    """A cloud as it comes, what its rows are, and the same tokens in models with random weights, if asked for."""

    name: str
    hook: str | None
    layer: int | None
    points: Float[np.ndarray, "point d"]
    table: pa.Table
    random: Sequence[Float[np.ndarray, "point d"]] = ()


class CloudSource(Protocol):
    """What a stage needs to know before it looks for a finished artifact, and the clouds themselves.

    model_name: None for files. words: of the artifact's label. shares_points: all clouds are of the same points.
    """

    model_name: str | None
    words: list[str]
    parents: list[Parent]
    shares_points: bool

    def identity(self) -> dict[str, Any]:
        """What decides the clouds, beside the parents."""
        ...

    def describe(self) -> str:
        """In words, for a report."""
        ...

    def read(self, stage: Stage) -> list[Cloud]:
        """The clouds, layer after layer."""
        ...


def find_source(config: TopologyConfig, stage: Stage) -> CloudSource:
    """The source that the config names; what can't be found or does not fit is told here, before any work.

    Raises:
        StrataError: no such store or file, a hook or layer that is not there, words that are no tokens.
    """
    if config.source == "files":
        return FileSource(config)
    return StoreSource(config, stage) if config.source == "store" else PromptSource(config, stage)


class FileSource:
    """Arrays in files."""

    shares_points = False
    model_name = None

    def __init__(self, config: TopologyConfig) -> None:
        named = [config.clouds] if isinstance(config.clouds, str) else list(config.clouds or [])
        self._paths = find_cloud_files(named)
        self._clouds = read_clouds(self._paths)
        names = config.point_names
        self._names = None if names is None else read_point_names(Path(names).expanduser(), self._clouds)
        self.words = [path.stem for path in self._paths[:2]]
        self.parents: list[Parent] = []
        self._config = config

    def identity(self) -> dict[str, Any]:
        """Contents and names of the files, and of the names of rows; what is drawn of large ones."""
        names = None if self._names is None else hashlib.sha256("\n".join(self._names).encode()).hexdigest()
        return {
            "clouds": {path.name: content_digest([path]) for path in self._paths},
            "point_names": names,
            **self._config.model_dump(include={"n_points", "seed"}),
        }

    def describe(self) -> str:
        """The files."""
        return ", ".join(path.name for path in self._paths)

    def read(self, stage: Stage) -> list[Cloud]:
        """One cloud for each array, as many rows of each as n_points says."""
        found = []
        for name, points in self._clouds.items():
            rows = np.arange(len(points))
            if self._config.n_points is not None and len(points) > self._config.n_points:
                draws = np.random.default_rng(self._config.seed)
                rows = np.sort(draws.choice(len(points), self._config.n_points, replace=False))
                stage.say(f"{name}: {len(rows):,} of {len(points):,} points are drawn (n_points)")
            columns: dict[str, Any] = {"row": pa.array(rows)}
            if self._names is not None:
                columns["text"] = pa.array([self._names[row] for row in rows])
            found.append(Cloud(name, None, None, points[rows], pa.table(columns)))
        return found


@dataclass(frozen=True, eq=False)
class _Words:
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


def _words(config: TopologyConfig, model: ModelConfig) -> _Words:
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
    choice = TokenChoice(place, index, labels, config.contexts, config.n_points, config.seed)
    return _Words(tokenizer, choice)


def _wanted_layers(config: TopologyConfig, n_layers: int, name: str) -> list[int]:
    if config.layers == "all":
        return list(range(n_layers))
    layers = [config.layers] if isinstance(config.layers, int) else sorted(set(config.layers))
    if beyond := [layer for layer in layers if layer >= n_layers]:
        raise StrataError(f"layers={beyond}: {name} has layers 0..{n_layers - 1}")
    return layers


def _named(clouds: Clouds, table: pa.Table, random: Sequence[Clouds]) -> list[Cloud]:
    return [
        Cloud(
            f"{point.hook}/{point.layer:02d}", point.hook, point.layer, cloud, table, [some[point] for some in random]
        )
        for point, cloud in clouds.items()
    ]


class StoreSource:
    """Tokens of an activation store."""

    shares_points = True

    def __init__(self, config: TopologyConfig, stage: Stage) -> None:
        self._config = config
        self._store: ActivationStore = find_store(stage, config.activations, config.model, config.dataset)
        self.model_name = self._store.model_name
        collected = ModelConfig.model_validate(self._store.artifact.meta.config["model"])
        held = sorted(point.layer for point in self._store.layout.hook_points if point.hook == config.hook)
        everything = held if config.layers == "all" and held else None
        layers = everything or _wanted_layers(config, self._store.layout.n_layers, self._store.model_name)
        self._points = [HookPoint(config.hook, layer) for layer in layers]
        self._store.require(self._points)
        self._words = _words(config, collected)
        self._model = collected
        self.words = [self.model_name, *_label_words(config)]
        self.parents = [self._store.artifact.parent]

    def identity(self) -> dict[str, Any]:
        """The choice of tokens and layers."""
        return self._words.identity(self._config.hook, [point.layer for point in self._points])

    def describe(self) -> str:
        """The store."""
        return f"{self._store.path.name} ({_tokens_in_words(self._config)})"

    def read(self, stage: Stage) -> list[Cloud]:
        """One pass over the store, for all layers."""
        chosen = choose_tokens(partial(store_tokens, self._store), self._words.choice)
        with stage.progress("reading activations", self._store.layout.n_tokens, "tokens") as advance:
            clouds = clouds_of_store(self._store, self._points, chosen, advance)
        random: list[Clouds] = []
        if self._config.random_init_control:
            sequences, again = _sequences_of(self._store, chosen)
            random = _random_clouds(self._config, self._model, stage, sequences, self._points, again)
        return _named(clouds, self._words.table(chosen), random)


def _sequences_of(store: ActivationStore, chosen: ChosenTokens) -> tuple[list[TokenSequence], ChosenTokens]:
    """The sequences of chosen tokens, and the choice with sequences counted among these."""
    wanted = np.unique(chosen.sequence)
    sequences = []
    for block in store_tokens(store):
        for sequence in wanted[(wanted >= block.sequence[0]) & (wanted <= block.sequence[-1])].tolist():
            start, stop = np.searchsorted(block.sequence, [sequence, sequence + 1])
            sequences.append(TokenSequence(sequence, block.token_ids[start:stop], block.keep[start:stop]))
    return sequences, chosen.moved(np.searchsorted(wanted, chosen.sequence))


def _random_clouds(
    config: TopologyConfig,
    model: ModelConfig,
    stage: Stage,
    sequences: Sequence[TokenSequence],
    points: Sequence[HookPoint],
    chosen: ChosenTokens,
) -> list[Clouds]:
    """The same tokens in models with random weights."""
    found = []
    with stage.progress("models with random weights", config.nulls.random_models, "models") as advance:
        for place in range(config.nulls.random_models):
            random = load_random_model(model, stage.device, seed=config.seed + place)
            found.append(clouds_of_model(random, sequences, points, chosen, config.batch_size))
            advance(1)
    return found


class PromptSource:
    """A model that reads a file of prompts."""

    shares_points = True

    def __init__(self, config: TopologyConfig, stage: Stage) -> None:
        self._config = config
        assert config.prompts is not None
        self._path = Path(config.prompts).expanduser()
        prompts = read_prompts(self._path, config.chat_template)
        n_layers = layers_in_config(config.model)
        if n_layers is not None:
            _wanted_layers(config, n_layers, config.model.name)
        self._words = _words(config, config.model)
        self._sequences, self._labels = tokenize_prompts(prompts, self._words.tokenizer, config.max_length)
        if not self._sequences:
            raise StrataError(f"prompts={self._path}: no prompt has a token")
        if self._labels is not None and self._words.choice.labels:
            raise StrataError(f"prompts={self._path} has labels, and tokens={config.tokens} gives others: use one")
        self._model = load_model(config.model, stage.device)
        layers = _wanted_layers(config, self._model.n_layers, config.model.name)
        self._points = [HookPoint(config.hook, layer) for layer in layers]
        self._model.check_hook_points(self._points)
        self._refuse_long()
        self.model_name = config.model.name
        self.words = [config.model.name, self._path.stem, *_label_words(config)]
        self.parents: list[Parent] = []

    def _refuse_long(self) -> None:
        longest = max(len(sequence.token_ids) for sequence in self._sequences)
        limit = getattr(self._model.module.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and longest > limit:
            raise StrataError(
                f"a prompt has {longest} tokens, and {self._config.model.name} has {limit} positions: set max_length"
            )

    def identity(self) -> dict[str, Any]:
        """The model, the tokens that it reads, and the choice of tokens and layers."""
        digest = hashlib.sha256()
        for sequence in self._sequences:
            digest.update(
                f"{len(sequence.token_ids)}\0".encode() + sequence.token_ids.tobytes() + sequence.roles.tobytes()
            )
        return {
            "model": self._model.identity(),
            "prompts": digest.hexdigest(),
            "labels": self._labels,
            **self._words.identity(self._config.hook, [point.layer for point in self._points]),
        }

    def describe(self) -> str:
        """The file."""
        return f"{self._path.name} ({_tokens_in_words(self._config)})"

    def read(self, stage: Stage) -> list[Cloud]:
        """One forward pass of each batch, for all layers."""
        chosen = choose_tokens(partial(sequence_tokens, self._sequences), self._words.choice, self._labels)
        total = sum(len(self._sequences[place].token_ids) for place in np.unique(chosen.sequence))
        with stage.progress("running the model", total, "tokens") as advance:
            clouds = clouds_of_model(
                self._model, self._sequences, self._points, chosen, self._config.batch_size, advance
            )
        random: list[Clouds] = []
        if self._config.random_init_control:
            random = _random_clouds(self._config, self._config.model, stage, self._sequences, self._points, chosen)
        return _named(clouds, self._words.table(chosen), random)


def _label_words(config: TopologyConfig) -> list[str]:
    tokens = config.tokens
    what = f"{len(tokens)}-words" if isinstance(tokens, list) else str(tokens)
    if config.labels is not None:
        what = Path(config.labels).stem
    hook = [] if config.hook == "resid_post" else [config.hook]
    return [what, *hook]


def _tokens_in_words(config: TopologyConfig) -> str:
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
    return what if config.contexts == 1 else f"{what}, means over {config.contexts}"
