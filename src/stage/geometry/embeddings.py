"""analysis=embeddings."""

from dataclasses import dataclass, field
from typing import Any

from src.artifacts import Parent, label
from src.config.geometry.stage import Analysis, GeometryConfig
from src.models.checkpoint import open_weights
from src.models.embedding_tables import EmbeddingTables, read_embeddings
from src.models.loading import load_tokenizer
from src.models.token_table import TokenTable, token_table
from src.report.finding import Finding
from src.stage.context import Stage
from src.text import tokenizer_identity


@dataclass(frozen=True, eq=False)
class EmbeddingAnalysis:
    """The embeddings of one model."""

    config: GeometryConfig
    tables: EmbeddingTables
    tokens: TokenTable
    tokenizer: dict[str, Any]
    name: Analysis = "embeddings"
    parents: list[Parent] = field(default_factory=list)

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
        settings = self.config.embeddings.model_dump(mode="json")
        return {
            "analysis": self.name,
            "embeddings": self.tables.digest,
            "tokenizer": self.tokenizer,
            "settings": settings,
            "compat": self.config.compat,
            "seed": self.config.seed,
        }

    def measure(self, stage: Stage) -> list[Finding]:
        """Nothing yet but the mean norm."""
        rows = self.tables.input[self.tokens.counted].double()
        norm = float(rows.norm(dim=-1).mean())
        return [Finding(f"The mean norm is {norm:.3g}.", files={"embeddings.json": {"mean_norm": norm}})]


def prepare(config: GeometryConfig, stage: Stage) -> EmbeddingAnalysis:
    """Read the embeddings. Raises StrataError if there are none, or no tokenizer."""
    tables = read_embeddings(open_weights(config.model))
    tokenizer = load_tokenizer(config.model)
    tokens = token_table(tokenizer, len(tables.input))
    return EmbeddingAnalysis(config, tables, tokens, tokenizer_identity(tokenizer))
