"""Embedding or unembedding tables of two models, their rows paired by what the tokens read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from src.artifacts import Parent
from src.config.geometry.alignment import AlignmentConfig
from src.config.shared import ModelConfig
from src.errors import NotApplicableError, StrataError
from src.geometry.alignment.pairing import Candidates, TokenPairs, candidates, pair_by_id, pair_by_text
from src.geometry.alignment.rows import PairedRows, split_tokens
from src.geometry.embedding.clumps import clumped_rows
from src.geometry.embedding.ordered_sets import BUILT_IN, FEWEST_WORDS, FoundSet, find_set
from src.geometry.embedding.rows import Rows
from src.geometry.embedding.untrained import untrained_rows
from src.models.checkpoint import open_weights
from src.models.embedding_tables import read_embeddings
from src.models.loading import load_tokenizer
from src.models.token_table import TokenTable, single_token, token_table
from src.stage.context import Stage
from src.stage.geometry.aligning.spaces import OrderedTokens, Spaces
from src.text import tokenizer_identity


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """One model's table, and what its rows stand for."""

    name: str
    table: Float[Tensor, "row d"]
    digest: str
    tokenizer: PreTrainedTokenizerBase
    rules: dict[str, Any]
    tokens: TokenTable

    def candidates(self, device: torch.device) -> Candidates:
        """Rows that may be paired: not those that training never met, nor copies, which would be on both sides."""
        finite = torch.cat([block.isfinite().all(dim=1) for block in self.table.split(8192)]).cpu().numpy()
        tokens = np.flatnonzero(~self.tokens.padding & finite)
        marks = np.zeros((2, len(self.table)), bool)
        if len(tokens):
            found = untrained_rows(Rows(self.table, tokens, device), self.tokens.padding & finite)
            marks[1, tokens] = found.copy
            plain = np.flatnonzero(~self.tokens.padding & ~self.tokens.special & finite & ~marks[1])
            marks[0, tokens] = found.zero | found.like_padding
            marks[0, plain] |= clumped_rows(Rows(self.table, plain, device))
        without: dict[str, Bool[np.ndarray, " row"]] = {
            "padding": self.tokens.padding,
            "special": self.tokens.special,
            "a piece of a character": self.tokens.fragment,
            "not finite": ~finite,
            "a copy of another row": marks[1],
            "untrained": marks[0],
        }
        return candidates(len(self.table), without)


@dataclass(frozen=True, eq=False)
class PairedTables:
    """Two vocabularies."""

    config: AlignmentConfig
    source: Vocabulary
    target: Vocabulary

    @property
    def parents(self) -> list[Parent]:
        """None: tables are read from checkpoints."""
        return []

    @property
    def names(self) -> tuple[str, str]:
        """Of the models."""
        return self.source.name, self.target.name

    @property
    def same_tokenizer(self) -> bool:
        """Whether both cut text alike, so that ids mean the same."""
        return self.source.rules == self.target.rules

    def identity(self) -> dict[str, Any]:
        """What decides the rows."""
        sides = {"source": self.source, "target": self.target}
        tables = {name: {"table": side.digest, "tokenizer": side.rules} for name, side in sides.items()}
        return {**tables, "ordered": [[each.name, list(each.words), each.cycle] for each in BUILT_IN]}

    def read(self, stage: Stage) -> Spaces:
        """Pair the rows by id under one tokenizer, else by their texts; tokens of ordered sets are kept out of fits."""
        ours, theirs = self.source.candidates(stage.device), self.target.candidates(stage.device)
        if self.same_tokenizer:
            pairs = pair_by_id(ours, theirs)
        else:
            pairs = pair_by_text(ours, self.source.tokens.texts, theirs, self.target.tokens.texts)
        ordered = ordered_sets(self.source.tokenizer, pairs)
        taken = np.zeros(len(pairs), bool)
        for each in ordered:
            taken[np.concatenate(each.members)] = True
        split = self.config.split
        group = split_tokens(len(pairs), (split.train, split.val, split.test), self.config.seed, taken)
        rows = PairedRows(
            self.source.table[torch.from_numpy(pairs.source)],
            self.target.table[torch.from_numpy(pairs.target)],
            group,
            np.arange(len(pairs)),
            [self.source.tokens.texts[token] for token in pairs.source.tolist()],
        )
        return Spaces(
            rows=rows,
            source_ids=pairs.source,
            target_ids=pairs.target,
            ordered=ordered,
            ordered_are_new=True,
            coverage=self._coverage(pairs),
            pairing=self._pairing_in_words(pairs),
            unit="tokens",
            tables=self._whole_tables() if self.config.compat == "notebook" else None,
        )

    def _coverage(self, pairs: TokenPairs) -> dict[str, Any]:
        return {
            "pairing": "id" if self.same_tokenizer else "text",
            "pairs": len(pairs),
            "exact": int(pairs.exact.sum()),
            "lower_case": int((~pairs.exact).sum()),
            "source": {"rows": len(self.source.table), "no_partner": pairs.no_partner[0], **pairs.source_left_out},
            "target": {"rows": len(self.target.table), "no_partner": pairs.no_partner[1], **pairs.target_left_out},
        }

    def _pairing_in_words(self, pairs: TokenPairs) -> str:
        by = "by id (one tokenizer)"
        if not self.same_tokenizer:
            lower = int((~pairs.exact).sum())
            by = f"by their texts ({lower:,} of them in lower case only)"
        sides = []
        for side, left_out, alone in zip(
            (self.source, self.target), (pairs.source_left_out, pairs.target_left_out), pairs.no_partner, strict=True
        ):
            reasons = [f"{count:,} {reason}" for reason, count in left_out.items()]
            reasons += [f"{alone:,} without a partner"] if alone else []
            sides.append(f"of {len(side.table):,} rows of {side.name}" + (f" {', '.join(reasons)}" if reasons else ""))
        return f"{len(pairs):,} tokens are paired {by}; left out are {'; '.join(sides)}."

    def _whole_tables(self) -> tuple[np.ndarray, np.ndarray, Sequence[int | None]]:
        if not self.same_tokenizer:
            raise StrataError(
                "compat=notebook pairs rows by id, which needs one tokenizer for both models; "
                f"{self.source.name} and {self.target.name} have two: use compat=null"
            )
        digits = [single_token(self.source.tokenizer, str(digit)) for digit in range(10)]
        return self.source.table.double().numpy(), self.target.table.double().numpy(), digits


def ordered_sets(tokenizer: PreTrainedTokenizerBase, pairs: TokenPairs) -> list[OrderedTokens]:
    """The ordered sets of which enough words are paired."""
    place = {token: pair for pair, token in enumerate(pairs.source.tolist())}
    found = []
    for ordered in BUILT_IN:
        words = find_set(tokenizer, ordered)
        members = [(index, np.array([place[token]])) for index, token in enumerate(words.tokens) if token in place]
        if len(members) >= FEWEST_WORDS:
            found.append(ordered_tokens(words, members))
    return found


def ordered_tokens(found: FoundSet, members: Sequence[tuple[int, np.ndarray]]) -> OrderedTokens:
    """A set of those of its words that have rows. members: index among the words found, and the rows."""
    kept = [index for index, _ in members]
    return OrderedTokens(
        found.ordered.name,
        tuple(found.words[index] for index in kept),
        found.ordered.cycle,
        found.distances[np.ix_(kept, kept)],
        [rows for _, rows in members],
    )


def prepare_tables(config: AlignmentConfig) -> PairedTables:
    """Read both tables.

    Raises:
        StrataError: no such model, no tokenizer, or twice the same table.
        NotApplicableError: a model without the table.
    """
    sides = [_vocabulary(model, config.space) for model in (config.model, config.target)]
    if sides[0].digest == sides[1].digest and sides[0].table.shape == sides[1].table.shape:
        raise StrataError(
            f"model={config.model.name} and target={config.target.name} have the same {config.space}: choose another "
            "target=..., or space=activations for layer to layer"
        )
    return PairedTables(config, sides[0], sides[1])


def _vocabulary(model: ModelConfig, space: str) -> Vocabulary:
    tables = read_embeddings(open_weights(model))
    table = tables.input if space == "embeddings" else tables.output
    if table is None:
        raise NotApplicableError(f"{model.name} predicts no tokens, so it has no unembedding; use space=embeddings")
    tokenizer = load_tokenizer(model)
    rules = tokenizer_identity(tokenizer)
    del rules["chat_template"]  # says nothing of what tokens are
    return Vocabulary(model.name, table.detach(), tables.digest, tokenizer, rules, token_table(tokenizer, len(table)))
