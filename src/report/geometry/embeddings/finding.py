"""What analysis=embeddings shows."""

from typing import Any

import torch

from src.config.geometry.stage import GeometryConfig
from src.geometry.embedding.profile import EmbeddingProfile
from src.report.artifact_report import NamedChart
from src.report.finding import Finding
from src.report.geometry.embeddings.figures import category_figure, overview
from src.report.geometry.embeddings.files import embedding_metrics, embedding_records, embedding_values
from src.report.geometry.embeddings.notebook import notebook_tables
from src.report.geometry.embeddings.tables import (
    category_table,
    census_table,
    input_output_table,
    ordered_table,
    percentile_table,
    position_table,
    relative_bias_tables,
    rows_table,
    special_table,
    table_of_numbers,
    untrained_table,
)
from src.report.geometry.embeddings.words import embedding_text, overview_caption


def embedding_finding(profile: EmbeddingProfile, config: GeometryConfig) -> Finding:
    """Words, tables, figures, records and files of a model's embeddings."""
    optional = [ordered_table(profile), category_table(profile), input_output_table(profile), position_table(profile)]
    figures = [
        NamedChart("embeddings", f"Embeddings of {profile.model}", overview(profile), overview_caption(profile)),
    ]
    if profile.categories is not None:
        caption = (
            "Cosines of the categories' mean rows, less the mean of all rows: blue pairs are kinds of things that are "
            "near each other, red ones lie apart. The diagonal is left out."
        )
        figures.append(NamedChart("categories", "Categories against each other", category_figure(profile), caption))
    files: dict[str, Any] = {"embeddings.json": embedding_values(profile, config)}
    if profile.notebook:
        files["embeddings_notebook.json"] = list(profile.notebook)
    return Finding(
        embedding_text(profile),
        tables=[
            rows_table(profile),
            table_of_numbers(profile),
            *(table for table in optional if table is not None),
            *notebook_tables(profile),
        ],
        details=[
            percentile_table(profile),
            special_table(profile),
            untrained_table(profile),
            census_table(profile),
            *relative_bias_tables(profile),
        ],
        figures=figures,
        records=embedding_records(profile),
        files=files,
        tensors={"embeddings": _arrays(profile)},
        metrics=embedding_metrics(profile),
    )


def _arrays(profile: EmbeddingProfile) -> dict[str, torch.Tensor]:
    arrays = {"token_id": torch.from_numpy(profile.ids.copy())}
    for table in profile.tables:
        arrays |= {
            f"{table.name}_norm": torch.from_numpy(table.norm_values.copy()),
            f"{table.name}_eigenvalue": torch.from_numpy(table.spectrum.eigenvalues.copy()),
            f"{table.name}_cosine_count": torch.from_numpy(table.histogram.counts.copy()),
        }
    if profile.input_output is not None:
        arrays["input_output_cosine"] = torch.from_numpy(profile.input_output.cosines.copy())
    if profile.positions is not None:
        arrays["position_norm"] = torch.from_numpy(profile.positions.norm_by_position.copy())
        arrays["position_cosine_by_offset"] = torch.from_numpy(profile.positions.cosine_by_offset.copy())
    return arrays
