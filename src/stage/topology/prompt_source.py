"""Clouds of a model that reads a file of prompts."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.activations.clouds import Clouds, clouds_of_model
from src.activations.token_choice import choose_tokens, sequence_tokens
from src.artifacts import Parent
from src.config.topology import TopologyConfig
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import layers_in_config, load_model
from src.stage.context import Stage
from src.stage.topology.choosing import label_words, tokens_in_words, wanted_layers, words_of
from src.stage.topology.cloud import Cloud
from src.stage.topology.model_clouds import named_clouds, random_clouds
from src.stage.topology.prompts import read_prompts, tokenize_prompts


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
            wanted_layers(config, n_layers, config.model.name)
        self._words = words_of(config, config.model)
        if config.chat_template and self._words.tokenizer.chat_template is None:
            raise StrataError(
                f"chat_template=true: the tokenizer of {config.model.name} has no chat template: choose the chat "
                "version of the model, or leave chat_template off"
            )
        self._sequences, self._labels = tokenize_prompts(prompts, self._words.tokenizer, config.max_length)
        if not self._sequences:
            raise StrataError(f"prompts={self._path}: no prompt has a token")
        if self._labels is not None and self._words.choice.labels:
            raise StrataError(f"prompts={self._path} has labels, and tokens={config.tokens} gives others: use one")
        self._model = load_model(config.model, stage.device)
        layers = wanted_layers(config, self._model.n_layers, config.model.name)
        self._points = [HookPoint(config.hook, layer) for layer in layers]
        self._model.check_hook_points(self._points)
        self._refuse_long()
        self.model_name = config.model.name
        self.words = [config.model.name, self._path.stem, *label_words(config)]
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
        return f"{self._path.name} ({tokens_in_words(self._config)})"

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
            random = random_clouds(self._config, self._config.model, stage, self._sequences, self._points, chosen)
        return named_clouds(clouds, self._words.table(chosen), random)
