"""States of two stores of the same text, their rows paired by place in the text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from src.activations.clouds import clouds_of_store
from src.activations.store import ActivationStore
from src.activations.token_choice import ChosenTokens
from src.activations.token_pairs import PairedTokens, PlainTokens, pair_tokens
from src.artifacts import Parent
from src.config.geometry.alignment import AlignmentConfig
from src.config.schema import parse_config
from src.config.shared import ModelConfig
from src.errors import StrataError
from src.geometry.alignment.rows import Group, PairedRows
from src.geometry.embedding.ordered_sets import BUILT_IN, FEWEST_WORDS, find_set
from src.hook_points import HookPoint
from src.models.loading import load_tokenizer
from src.stage.context import Stage
from src.stage.geometry.aligning.spaces import OrderedTokens, Spaces
from src.stage.geometry.aligning.tables import ordered_tokens
from src.stage.stores import find_store, split_store
from src.text import tokenizer_identity
from src.text.token_strings import token_strings


@dataclass(frozen=True, eq=False)
class PairedStates:
    """A hook point of one store and one of another (or of the same)."""

    config: AlignmentConfig
    stores: tuple[ActivationStore, ActivationStore]
    points: tuple[HookPoint, HookPoint]
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]
    same_tokenizer: bool

    @property
    def names(self) -> tuple[str, str]:
        """Models and layers."""
        first, second = (f"{store.model_name} {point}" for store, point in zip(self.stores, self.points, strict=True))
        return first, second

    @property
    def parents(self) -> list[Parent]:
        """The stores."""
        return list(dict.fromkeys(store.artifact.parent for store in self.stores))

    def identity(self) -> dict[str, Any]:
        """What decides the rows."""
        return {
            "stores": [store.artifact.meta.fingerprint for store in self.stores],
            "points": [str(point) for point in self.points],
            "rows": self.config.rows,
            "ordered": [[each.name, list(each.words), each.cycle] for each in BUILT_IN],
        }

    def read(self, stage: Stage) -> Spaces:
        """Draw pairs of tokens, read both states of each; documents are dealt to train, val and test as everywhere."""
        pairs = self._pairs()
        split = split_store(self.stores[0], self.config.split, 1, self.config.seed)
        group_of = np.array([Group.TRAIN, Group.VAL, Group.TEST], np.int8)
        group = group_of[np.minimum(split.groups[pairs.sequence], 2)]
        places = ((pairs.sequence, pairs.position), (pairs.target_sequence, pairs.target_position))
        total = sum(store.layout.n_tokens for store in self.stores)
        clouds = []
        with stage.progress("reading states", total, "tokens") as advance:
            for store, point, (sequence, position) in zip(self.stores, self.points, places, strict=True):
                chosen = _chosen(sequence, position, pairs.token_id)
                clouds.append(torch.from_numpy(clouds_of_store(store, [point], chosen, advance)[point]))
        strings = token_strings(self.tokenizers[0], np.unique(pairs.token_id))
        labels = [strings[token] for token in pairs.token_id.tolist()]
        rows = PairedRows(clouds[0], clouds[1], group, split.documents[pairs.sequence], labels)
        n_sequences, n_matched = pairs.n_sequences
        return Spaces(
            rows=rows,
            source_ids=pairs.token_id,
            target_ids=pairs.token_id if self.same_tokenizer else np.full(len(pairs), -1),
            ordered=self._ordered(pairs, group),
            ordered_are_new=False,
            coverage={
                "pairing": "position" if self.same_tokenizer else "characters",
                "pairs": len(pairs),
                "sequences": n_sequences,
                "matched_sequences": n_matched,
            },
            pairing=(
                f"{len(pairs):,} tokens are paired by "
                f"{'position' if self.same_tokenizer else 'the characters they cover'} "
                f"in {n_matched:,} of {n_sequences:,} sequences; maps are judged on documents that they were not "
                "fitted on."
            ),
            unit="documents",
        )

    def _pairs(self) -> PairedTokens:
        plain = [PlainTokens.of(tokenizer) for tokenizer in self.tokenizers]
        return pair_tokens(
            *self.stores,
            *plain,
            same_tokenizer=self.same_tokenizer,
            most=self.config.rows,
            seed=self.config.seed,
        )

    def _ordered(self, pairs: PairedTokens, group: np.ndarray) -> list[OrderedTokens]:
        """Words of ordered sets, each as the mean of its test tokens."""
        test = np.flatnonzero(group == Group.TEST)
        found = []
        for ordered in BUILT_IN:
            words = find_set(self.tokenizers[0], ordered)
            rows = [(index, test[pairs.token_id[test] == token]) for index, token in enumerate(words.tokens)]
            members = [(index, some) for index, some in rows if len(some)]
            if len(members) >= FEWEST_WORDS:
                found.append(ordered_tokens(words, members))
        return found


def _chosen(sequence: np.ndarray, position: np.ndarray, token_id: np.ndarray) -> ChosenTokens:
    n = len(sequence)
    none = np.full(n, -1)
    return ChosenTokens(sequence, position, token_id, np.arange(n), False, False, none, (), ())


def prepare_states(config: AlignmentConfig, stage: Stage) -> PairedStates:
    """Find both stores and hook points.

    Raises:
        StrataError: no store, or several; a layer that was not collected; twice the same states.
    """
    if config.compat is not None:
        raise StrataError("compat=notebook is of embeddings alone: the notebook aligned nothing else")
    stores = (
        find_store(stage, config.activations, config.model, config.dataset),
        find_store(stage, config.target_activations, config.target, config.dataset, key="target_activations"),
    )
    layer = stores[0].layout.n_layers // 2 if config.layer is None else config.layer
    if config.target_layer is not None:
        other = config.target_layer
    else:
        # the block that ends at the same share of the stack
        depth = (layer + 1) / stores[0].layout.n_layers
        other = max(0, round(depth * stores[1].layout.n_layers) - 1)
    points = HookPoint(config.hook, layer), HookPoint(config.hook, other)
    for store, point in zip(stores, points, strict=True):
        store.require([point])
    if stores[0].artifact.meta.fingerprint == stores[1].artifact.meta.fingerprint and points[0] == points[1]:
        raise StrataError(
            f"source and target are both {points[0]} of {stores[0].path.name}: choose another target_layer=... or "
            "target=..."
        )
    tokenizers = load_tokenizer(_model_of(stores[0], config)), load_tokenizer(_model_of(stores[1], config))
    rules = [tokenizer_identity(tokenizer)["rules"] for tokenizer in tokenizers]
    return PairedStates(config, stores, points, tokenizers, rules[0] == rules[1])


def _model_of(store: ActivationStore, config: AlignmentConfig) -> ModelConfig:
    """The model that a store was collected with; its own code is run only if the user trusts it now."""
    values = store.artifact.meta.config["model"]
    trusted = config.model.trust_remote_code or config.target.trust_remote_code
    return parse_config(ModelConfig, {**values, "trust_remote_code": trusted and values["trust_remote_code"]})
