"""All that one run of eval.py has found, as text, tables, figures and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.report import evaluation as of_residual
from src.report import feature_evaluation as of_features
from src.report import matched_rank as of_rank
from src.report.artifact_report import NamedChart
from src.report.atlas import alpha_figures, decay_figures
from src.report.evaluation import Evaluations
from src.report.feature_files import write_features
from src.report.matched_rank import Ranks
from src.report.rank_files import rank_summaries, write_ranks
from src.report.records import write_records
from src.report.tables import Table
from src.transport.evaluate import OPERATOR
from src.transport.pairs import LayerPair
from src.transport.saved import SavedOperator


@dataclass(frozen=True)
class Assessment:
    """What was asked for; None for what was not.

    residual: operators beside their baselines. ranks: the matched-rank analysis. shown_ranks: of its table. features:
    of the SAEs of the targets. documents: in words, what all was scored on.
    """

    operators: Mapping[LayerPair, SavedOperator]
    residual: Evaluations | None
    ranks: Ranks | None
    shown_ranks: Sequence[int]
    features: of_features.FeatureReport | None
    documents: str

    @property
    def text(self) -> str:
        """What was found, and what was judged."""
        beside = [
            *(["their baselines"] if self.residual else []),
            *(["the ceilings of every rank"] if self.ranks else []),
            *(["single features"] if self.features else []),
        ]
        fitted = sorted({f"{each.settings['method']} at {each.settings['hook']}" for each in self.operators.values()})
        what = f"{len(self.operators)} operators ({' and '.join(fitted)})"
        found = f"{of_residual.residual_finding(self.residual)} " if self.residual else ""
        return f"{found}Judged: {what} on {self.documents}, beside {' and '.join(beside)}."

    @property
    def tables(self) -> list[Table]:
        """For the terminal."""
        tables = [of_residual.summary_table(self.residual)] if self.residual else []
        if self.features:
            tables += of_features.feature_tables(self.features)
        if self.ranks:
            tables += [of_rank.ceiling_table(self.ranks), of_rank.size_table(self.ranks)]
            tables.append(of_rank.rank_table(self.ranks, self.shown_ranks))
        return tables

    @property
    def details(self) -> list[Table]:
        """For the report page alone."""
        tables: list[Table | None] = []
        if self.residual:
            tables = [of_residual.residual_table(self.residual), of_residual.bos_table(self.residual)]
        if self.features:
            tables += of_features.feature_details(self.features)
        return [table for table in tables if table is not None]

    @property
    def figures(self) -> list[NamedChart]:
        """The atlas over all pairs first, then what is drawn pair by pair."""
        figures = alpha_figures(self.operators)
        if self.residual:
            figures = [*of_residual.residual_figures(self.residual), *decay_figures(self.residual), *figures]
        if self.features:
            figures = [*figures, *of_features.feature_figures(self.features)]
        return [*figures, *of_rank.rank_figures(self.ranks)] if self.ranks else figures

    @property
    def metrics(self) -> dict[str, float]:
        """For experiment trackers."""
        values = of_residual.operator_metrics(self.residual) if self.residual else {}
        values |= of_features.feature_metrics(self.features) if self.features else {}
        return values | (of_rank.rank_metrics(self.ranks) if self.ranks else {})


def write_assessment(folder: Path, found: Assessment) -> None:
    """Write `residual.*`, `features.*`, `matched_rank_pairs.*`, `matched_rank.parquet`, `spectrum.parquet`."""
    names = {pair: saved.artifact.meta.name for pair, saved in found.operators.items()}
    if found.residual:
        write_records(folder / "residual", of_residual.residual_records(found.residual, names))
    if found.features:
        residual = {pair: each.predictors[OPERATOR].metrics for pair, each in (found.residual or {}).items()}
        write_features(folder, found.features.scores, found.features.tokens, residual)
    if found.ranks:
        write_records(folder / "matched_rank_pairs", rank_summaries(found.ranks, names))
        write_ranks(folder, found.ranks)
