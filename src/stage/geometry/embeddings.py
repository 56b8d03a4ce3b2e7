"""analysis=embeddings."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts import Parent, label
from src.config.geometry.stage import Analysis, GeometryConfig
from src.errors import NotApplicableError, StrataError
from src.geometry.embedding.category_lists import CATEGORIES
from src.geometry.embedding.census import parameter_census
from src.geometry.embedding.ordered_sets import BUILT_IN
from src.geometry.embedding.relative_bias import relative_bias
from src.geometry.embedding.word_lists import read_categories, read_ordered_sets
from src.geometry.simplices.moments import finite_rows
from src.models.checkpoint import Weights, catalogue, open_weights, read_matrix
from src.models.embedding_tables import read_embeddings
from src.models.loading import load_tokenizer
from src.models.token_table import token_table
from src.report.finding import Finding
from src.report.geometry.embeddings.finding import embedding_finding
from src.stage.context import Stage
from src.stage.geometry.embedding_profile import EmbeddingInputs, counted_rows, profile_embeddings
from src.text import tokenizer_identity


@dataclass(frozen=True, eq=False)
class EmbeddingAnalysis:
    """The embeddings of one model."""

    inputs: EmbeddingInputs
    tokenizer: dict[str, Any]
    name: Analysis = "embeddings"
    parents: list[Parent] = field(default_factory=list)

    @property
    def config(self) -> GeometryConfig:
        """Of the stage."""
        return self.inputs.config

    @property
    def title(self) -> str:
        """Of the report."""
        return f"Embeddings of {self.config.model.name}"

    @property
    def label(self) -> str:
        """Of the artifact."""
        return label(self.config.model.name, self.name)

    def identity(self) -> dict[str, Any]:
        """What decides the content."""
        settings = self.config.embeddings.model_dump(mode="json", exclude={"ordered_sets", "categories"})
        biases = hashlib.sha256(b"".join(bias.table.tobytes() for bias in self.inputs.biases)).hexdigest()
        return {
            "analysis": self.name,
            "embeddings": self.inputs.tables.digest,
            "biases": biases,
            "census": self.inputs.census.by_module,
            "tokenizer": self.tokenizer,
            "settings": settings,
            "ordered_sets": [[each.name, list(each.words), each.cycle] for each in self.inputs.ordered],
            "categories": {name: list(words) for name, words in self.inputs.categories.items()},
            "compat": self.config.compat,
            "seed": self.config.seed,
        }

    def measure(self, stage: Stage) -> list[Finding]:
        """All of it, as one finding."""
        return [embedding_finding(profile_embeddings(self.inputs, stage), self.config)]


def prepare(config: GeometryConfig, stage: Stage) -> EmbeddingAnalysis:
    """Read the embeddings and word lists. Raises StrataError if there are none, no tokenizer, or no such word list."""
    own_sets, own_categories = config.embeddings.ordered_sets, config.embeddings.categories
    ordered = BUILT_IN if own_sets is None else (*BUILT_IN, *read_ordered_sets(Path(own_sets)))
    categories = CATEGORIES if own_categories is None else read_categories(Path(own_categories))
    weights = open_weights(config.model)
    tables = read_embeddings(weights)
    tokenizer = load_tokenizer(config.model)
    identity = tokenizer_identity(tokenizer)
    matrices = catalogue(weights)
    biases = tuple(
        relative_bias(matrix.name, read_matrix(weights, matrix))
        for matrix in matrices
        if matrix.role == "relative_position" and len(matrix.shape) == 2
    )
    inputs = EmbeddingInputs(
        config=config,
        tables=tables,
        tokens=token_table(tokenizer, len(tables.input)),
        tokenizer=tokenizer,
        ordered=ordered,
        categories=categories,
        biases=biases,
        census=parameter_census(weights, matrices),
        sizes=_sizes(weights),
    )
    _refuse_unusable(inputs)
    return EmbeddingAnalysis(inputs, identity)


def _refuse_unusable(inputs: EmbeddingInputs) -> None:
    """Too few rows for anything to be said, or rows that would make every number NaN."""
    tokens, model = inputs.tokens, inputs.config.model.name
    ids = counted_rows(tokens, inputs.config.embeddings.rows)
    if len(ids) < 2:
        raise NotApplicableError(
            f"{model} has {len(ids)} tokens that stand for text, and two are the least: set embeddings.rows=tokens"
        )
    used = np.union1d(ids, np.flatnonzero(~tokens.padding))
    for name, table in (("embeddings", inputs.tables.input), ("unembedding", inputs.tables.output)):
        if table is None:
            continue
        bad = np.flatnonzero(~finite_rows(table).cpu().numpy())
        if len(bad := np.intersect1d(bad, used)):
            raise StrataError(
                f"{len(bad):,} rows of the {name} of {model} hold numbers that are not finite (the first is row "
                f"{bad[0]}): the checkpoint is damaged, or model.dtype too narrow for it"
            )


def _sizes(weights: Weights) -> dict[str, int]:
    text = weights.architecture.get_text_config()
    names = ("num_hidden_layers", "num_decoder_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    found = {name: getattr(text, name, None) for name in (*names, "head_dim", "d_kv", "vocab_size")}
    return {name: value for name, value in found.items() if isinstance(value, int)}
