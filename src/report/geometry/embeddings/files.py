"""Embeddings as files for other programs, and numbers for the tracker."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from src.config.geometry.stage import GeometryConfig
from src.geometry.embedding.profile import EmbeddingProfile, TableProfile
from src.report.geometry.embeddings.words import isotropic_participation


def embedding_values(profile: EmbeddingProfile, config: GeometryConfig) -> dict[str, Any]:
    """Every scalar, with the nulls beside them; NaN and infinities are null."""
    untrained = profile.untrained
    values = {
        "model": profile.model,
        "seed": config.seed,
        "settings": config.embeddings.model_dump(mode="json"),
        "dtype": "float64 (cosine histogram: float32 products)",
        "census": asdict(profile.census) | {"sizes": dict(profile.sizes)},
        "rows": {
            "rows": profile.n_rows, "tokens": profile.n_tokens, "padding": profile.n_padding,
            "special": profile.n_special, "counted": len(profile.ids), "tied": profile.tied,
            "untrained": int(untrained.untrained.sum()), "like_padding": int(untrained.like_padding.sum()),
            "copies": int(untrained.copy.sum()), "zero": int(untrained.zero.sum()),
            "low_norm": int(untrained.low_norm.sum()), "padding_cosine": untrained.padding_cosine,
        },
        "tables": {table.name: _table(table) for table in profile.tables},
        "ordered_sets": {each.found.ordered.name: _ordered(each) for each in profile.ordered},
        "ordered_sets_too_short": {each.ordered.name: list(each.words) for each in profile.too_short},
        "categories": None if profile.categories is None else _categories(profile),
        "input_output": None if profile.input_output is None else _input_output(profile),
        "positions": None if profile.positions is None else _positions(profile),
        "relative_biases": {
            bias.name: {
                "mean": float(bias.table.mean()), "std": float(bias.table.std()), "min": float(bias.table.min()),
                "max": float(bias.table.max()), "head_mean": bias.head_means.tolist(),
                "head_std": bias.head_stds.tolist(), "head_range": bias.head_ranges.tolist(),
            }
            for bias in profile.biases
        },
    }  # fmt: skip
    return _plain(values)


def _table(table: TableProfile) -> dict[str, Any]:
    spectrum = table.spectrum
    isotropic = isotropic_participation(table)
    return {
        "width": table.width,
        "norms": asdict(table.norms),
        "centred_norms": asdict(table.centred_norms),
        "columns": asdict(table.columns),
        "mean_share": table.mean_share,
        "cosine": {
            "mean": table.cosine.mean, "std": table.cosine.std, "isotropic_std": 1 / math.sqrt(table.width),
            "pairs": table.histogram.n_pairs, "percentile_error": table.histogram.error,
            "percentile_rank_error": table.histogram.rank_error,
            "percentiles": {str(key): list(value) for key, value in table.histogram.percentiles().items()},
            "centred_mean": table.centred_cosine_mean,
        },
        "spectrum": {
            "total_variance": spectrum.total, "top": spectrum.eigenvalues[:20].tolist(),
            "top_cumulative_share": spectrum.cumulative[:20].tolist(), "participation": spectrum.participation,
            "participation_share": spectrum.participation / table.width, "participation_as_sample": spectrum.as_sample,
            "isotropic_participation": isotropic, "isotropic_participation_share": isotropic / table.width,
            "dimensions": {str(key): value for key, value in spectrum.dimensions.items()},
        },
        "distances": asdict(table.distances)
        | {
            "mean_squared": table.mean_squared_distance,
            "mean_by_sqrt_d": table.distances.mean / math.sqrt(table.width),
        },
    }  # fmt: skip


def _ordered(each: Any) -> dict[str, Any]:
    return {
        "cycle": each.found.ordered.cycle, "words": list(each.found.words), "tokens": list(each.found.tokens),
        "missing": list(each.found.missing), **asdict(each.statistics), "gap": each.statistics.gap,
        "adjusted_p": each.adjusted_p,
    }  # fmt: skip


def _categories(profile: EmbeddingProfile) -> dict[str, Any]:
    found = profile.categories
    assert found is not None
    return {
        "purity": asdict(found.purity),
        "categories": [
            asdict(each) | {"adjusted_p": p, "adjusted_centred_p": centred}
            for each, p, centred in zip(found.statistics, found.adjusted_p, found.adjusted_centred_p, strict=True)
        ],
    }


def _input_output(profile: EmbeddingProfile) -> dict[str, Any]:
    found = profile.input_output
    assert found is not None
    return {
        "cosine_mean": float(found.cosines.mean()), "cosine_std": float(found.cosines.std()),
        "cosine_min": float(found.cosines.min()), "cosine_max": float(found.cosines.max()),
        "unpaired_cosine_mean": found.unpaired, "input_norm": found.input_norm, "output_norm": found.output_norm,
        "difference": found.difference, "relative_difference": found.relative, "equal": found.equal,
    }  # fmt: skip


def _positions(profile: EmbeddingProfile) -> dict[str, Any]:
    found = profile.positions
    assert found is not None
    return {
        "positions": found.n_positions, "norms": asdict(found.norms), "participation": found.participation,
        "pearson": found.pearson, "p": found.p, "draws": found.n_draws,
    }  # fmt: skip


def embedding_records(profile: EmbeddingProfile) -> dict[str, list[dict[str, Any]]]:
    """Short tables: ordered pairs, categories and their pairs."""
    records: dict[str, list[dict[str, Any]]] = {
        "ordered_sets": [
            {
                "set": each.found.ordered.name, "first": each.found.words[i], "second": each.found.words[j],
                "distance": int(each.found.distances[i, j]), "cosine": float(each.cosines[i, j]),
            }
            for each in profile.ordered
            for i in range(len(each.found.words))
            for j in range(i + 1, len(each.found.words))
        ]
    }  # fmt: skip
    if profile.categories is not None:
        found = profile.categories
        names = [each.name for each in found.statistics]
        records["categories"] = _categories(profile)["categories"]
        records["category_pairs"] = [
            {
                "first": names[i], "second": names[j], "cosine": float(found.centroids.raw[i, j]),
                "centred_cosine": float(found.centroids.centred[i, j]),
            }
            for i in range(len(names))
            for j in range(i + 1, len(names))
        ]  # fmt: skip
    return {stem: rows for stem, rows in records.items() if rows}


def embedding_metrics(profile: EmbeddingProfile) -> dict[str, float]:
    """What is compared between models."""
    table = profile.tables[0]
    metrics = {
        "participation_share": table.spectrum.participation / table.width,
        "isotropic_participation_share": isotropic_participation(table) / table.width,
        "mean_cosine": table.cosine.mean,
        "cosine_std": table.cosine.std,
        "norm_cv": table.norms.cv,
        "log_norm_std": table.norms.log_std,
        "untrained_rows": float(profile.untrained.untrained.sum()),
    }
    for each in profile.ordered:
        name = each.found.ordered.name.replace(" ", "_").replace("-", "_")
        metrics |= {f"{name}_r": each.statistics.pearson, f"{name}_p": each.adjusted_p}
    if profile.categories is not None:
        metrics["nearest_of_same_category"] = profile.categories.purity.share
        metrics["nearest_of_same_category_by_chance"] = profile.categories.purity.by_chance
    if profile.input_output is not None:
        metrics["input_output_cosine"] = float(profile.input_output.cosines.mean())
    return metrics


def _plain(value: Any) -> Any:
    """JSON has no NaN, and no keys but strings."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
