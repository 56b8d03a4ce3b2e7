"""Clouds of an activation store."""

from functools import partial
from typing import Any

import numpy as np

from src.activations.clouds import Clouds, clouds_of_store
from src.activations.store import ActivationStore
from src.activations.token_choice import ChosenTokens, choose_tokens, store_tokens
from src.config.shared import ModelConfig
from src.config.topology import TopologyConfig
from src.hook_points import HookPoint
from src.stage.context import Stage
from src.stage.stores import find_store
from src.stage.topology.choosing import label_words, tokens_in_words, wanted_layers, words_of
from src.stage.topology.cloud import Cloud
from src.stage.topology.model_clouds import named_clouds, random_clouds
from src.text import TokenSequence


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
        layers = everything or wanted_layers(config, self._store.layout.n_layers, self._store.model_name)
        self._points = [HookPoint(config.hook, layer) for layer in layers]
        self._store.require(self._points)
        self._words = words_of(config, collected)
        self._model = collected
        self.words = [self.model_name, *label_words(config)]
        self.parents = [self._store.artifact.parent]

    def identity(self) -> dict[str, Any]:
        """The choice of tokens and layers."""
        return self._words.identity(self._config.hook, [point.layer for point in self._points])

    def describe(self) -> str:
        """The store."""
        return f"{self._store.path.name} ({tokens_in_words(self._config)})"

    def read(self, stage: Stage) -> list[Cloud]:
        """One pass over the store, for all layers."""
        chosen = choose_tokens(partial(store_tokens, self._store), self._words.choice)
        with stage.progress("reading activations", self._store.layout.n_tokens, "tokens") as advance:
            clouds = clouds_of_store(self._store, self._points, chosen, advance)
        random: list[Clouds] = []
        if self._config.random_init_control:
            sequences, again = _sequences_of(self._store, chosen)
            random = random_clouds(self._config, self._model, stage, sequences, self._points, again)
        return named_clouds(clouds, self._words.table(chosen), random)


def _sequences_of(store: ActivationStore, chosen: ChosenTokens) -> tuple[list[TokenSequence], ChosenTokens]:
    """The sequences of chosen tokens, and the choice with sequences counted among these."""
    wanted = np.unique(chosen.sequence)
    sequences = []
    for block in store_tokens(store):
        for sequence in wanted[(wanted >= block.sequence[0]) & (wanted <= block.sequence[-1])].tolist():
            start, stop = np.searchsorted(block.sequence, [sequence, sequence + 1])
            sequences.append(TokenSequence(sequence, block.token_ids[start:stop], block.keep[start:stop]))
    return sequences, chosen.moved(np.searchsorted(wanted, chosen.sequence))
