"""analysis=lexicon with compat=notebook: the published notebook's own quantities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.geometry.stage import GeometryConfig
from src.geometry.lexicon.distances import path_distances
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words import notebook
from src.geometry.words.notebook_states import notebook_contextual
from src.models import LanguageModel
from src.models.embedding_tables import EmbeddingTables
from src.report.finding import Finding
from src.report.geometry.lexicon.notebook import notebook_finding
from src.stage.context import Stage


@dataclass(frozen=True, eq=False)
class NotebookWork:
    """What the notebook's quantities are computed from."""

    taxonomy: Taxonomy
    entries: list[notebook.Entry]
    tables: EmbeddingTables
    model: LanguageModel
    tokenizer: PreTrainedTokenizerBase
    seeds: int

    def measure(self, stage: Stage) -> Finding:
        """Compute them."""
        senses = [entry.sense for entry in self.entries]
        with stage.progress("reading definitions", len(self.entries), "definitions") as advance:
            contextual = notebook_contextual(
                self.model, self.tokenizer, [entry.definition for entry in self.entries], advance
            )
        static = self.tables.input[[entry.token_id for entry in self.entries]].float().numpy()
        rows = {"static": static, "contextual": contextual}
        distances = path_distances(self.taxonomy, senses, artificial_root=True)
        rng = np.random.default_rng(notebook.SEED)
        chains = notebook.notebook_chains(self.taxonomy, senses)
        found: dict[str, Any] = {
            "n_tokens": len(self.entries),
            "n_synsets": len(set(senses)),
            "pos": {pos: sum(self.taxonomy.pos[sense] == pos for sense in senses) for pos in "nvasr"},
            **notebook.static_against_contextual(static, contextual),
            **notebook.notebook_correlations(rows, distances, [self.taxonomy.pos[sense] for sense in senses], rng),
            "bands": notebook.notebook_bands(rows, distances, rng),
            "n_chains": len(chains),
            "chains": {name: notebook.chain_cosines(values, chains) for name, values in rows.items()},
            "classes": notebook.notebook_classes(rows, [self.taxonomy.classes[sense] for sense in senses]),
            "seeds": notebook.seed_summary(notebook.notebook_seeds(rows, distances, chains, self.seeds)),
            "n_seeds": self.seeds,
        }
        return notebook_finding(found)


def prepare_notebook(
    config: GeometryConfig,
    taxonomy: Taxonomy,
    tokenizer: PreTrainedTokenizerBase,
    tables: EmbeddingTables,
    model: LanguageModel,
) -> NotebookWork:
    """Match tokens as the notebook does. Raises NotApplicableError if hardly any match."""
    entries = notebook.notebook_entries(taxonomy, tokenizer)
    return NotebookWork(taxonomy, entries, tables, model, tokenizer, config.lexicon.seeds or notebook.SEEDS)
