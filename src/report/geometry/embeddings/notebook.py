"""The published notebook's numbers of embeddings, beside ours (compat=notebook)."""

from collections.abc import Mapping
from typing import Any

from src.geometry.embedding.profile import EmbeddingProfile
from src.report.tables import Cell, Table

_CAPTION = (
    "Padding rows are counted; cosines from 5,000 rows, distances from 2,000, eigenvalues from 10,000 (qwen), drawn "
    "with seed 42; a digit of several pieces is its first piece; classes and special tokens are fixed ids. Its eight "
    "word lists are in no published copy, so what it compares with them is left out."
)


def notebook_tables(profile: EmbeddingProfile) -> list[Table]:
    """A table for both variants; none without compat=notebook."""
    if not profile.notebook:
        return []
    first = profile.tables[0]
    digits = next((each for each in profile.ordered if each.found.ordered.name == "digits"), None)
    ours: dict[str, Cell] = {
        "rows": len(profile.ids),
        "norms.mean": first.norms.mean,
        "norms.std": first.norms.std,
        "norms.near_zero": first.norms.n_near_zero,
        "cosines.mean": first.cosine.mean,
        "cosines.std": first.cosine.std,
        "cosines.median": first.histogram.percentile(50),
        "spectrum.participation": first.spectrum.participation,
        "spectrum.participation_share": first.spectrum.participation / first.width,
        "spectrum.dimensions.90": first.spectrum.dimensions[90],
        "distances.mean": first.distances.mean,
        "distances.cv": first.distances.cv,
        "digits.pearson": None if digits is None else digits.statistics.pearson,
        "digits.gap": None if digits is None else digits.statistics.gap,
    }
    if profile.input_output is not None:
        ours["input_output.cosine.mean"] = float(profile.input_output.cosines.mean())
        ours["input_output.relative_difference"] = profile.input_output.relative
    by_id = [name for variant in profile.notebook for name in variant.get("categories", {})]
    ours |= {f"categories.{name}.lift": None for name in by_id}
    names = [str(variant["variant"]) for variant in profile.notebook]
    rows = [
        [key.replace("_", " ").replace(".", ": "), *(_find(variant, key) for variant in profile.notebook), value]
        for key, value in ours.items()
    ]
    columns = ["", *(f"notebook ({name})" for name in names), "ours"]
    return [Table("As the notebook computes it", columns, rows, _CAPTION)]


def _find(values: Mapping[str, Any], path: str) -> Cell:
    for key in path.split("."):
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    return values  # pyright: ignore[reportReturnType]
