"""The numbers that models are compared by: where each stands in the files of which analysis, and its null beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Where:
    """The first record of a list whose field has a value."""

    field: str
    value: str


Step = str | int | Where
Place = tuple[Step, ...]


@dataclass(frozen=True)
class Metric:
    """One number of one analysis.

    name: of records, and of `src.geometry.published`. label: in tables. file: of the artifact; path: in it, by keys,
    indices of lists, and `Where`. low, high: of the interval; null: what chance or no structure gives; p: beside them
    in the same file. notebook: file and path of the notebook's own number (compat=notebook).
    """

    table: str
    file: str
    name: str
    label: str
    path: Place
    low: Place | None = None
    high: Place | None = None
    null: Place | None = None
    p: Place | None = None
    notebook: tuple[str, Place] | None = None


_INPUT = ("tables", "input")
_SIMPLEX = ("spaces", "input")
_MATCHED = (*_SIMPLEX, "nulls", "covariance_and_norms")
_PER_DIMENSION = (*_SIMPLEX, "nulls", "dimension_std", "ratio")
_STATIC = ("profiles", Where("representation", "static"))
_MASS = ("statistics", "positive_mass")
_COPYING = ("statistics", "copying")
_LAST = ("layers", -1)
_NOTEBOOK_INPUT = ("volumes", "input")


def _share(role: str) -> Metric:
    return Metric(
        "Weights",
        "weights.json",
        f"small_{role}_share",
        f"{role.upper()}: |w| < 0.1",
        ("metrics", f"small_{role}_share"),
        null=("nulls", f"small_{role}_share"),
        notebook=("weights_notebook.json", ("types", Where("type", f"self_attn_{role}"), "below_0.1")),
    )


METRICS: tuple[Metric, ...] = (
    Metric(
        "Embeddings",
        "embeddings.json",
        "participation_share",
        "PR / d",
        (*_INPUT, "spectrum", "participation_share"),
        null=(*_INPUT, "spectrum", "isotropic_participation_share"),
        notebook=("embeddings_notebook.json", (0, "spectrum", "participation_share")),
    ),
    Metric(
        "Embeddings",
        "embeddings.json",
        "mean_cosine",
        "mean cosine",
        (*_INPUT, "cosine", "mean"),
        notebook=("embeddings_notebook.json", (0, "cosines", "mean")),
    ),
    Metric(
        "Embeddings",
        "embeddings.json",
        "digit_r",
        "digits r",
        ("ordered_sets", "digits", "pearson"),
        p=("ordered_sets", "digits", "adjusted_p"),
        notebook=("embeddings_notebook.json", (0, "digits", "pearson")),
    ),
    Metric(
        "Embeddings",
        "embeddings.json",
        "category_purity",
        "purity",
        ("categories", "purity", "share"),
        null=("categories", "purity", "by_chance"),
        p=("categories", "purity", "p"),
    ),
    Metric(
        "Simplices",
        "simplices.json",
        "simplex_cv",
        "CV",
        (*_SIMPLEX, "cv", "value"),
        (*_SIMPLEX, "cv", "low"),
        (*_SIMPLEX, "cv", "high"),
        null=(*_MATCHED, "cv", "value"),
        p=(*_MATCHED, "p"),
        notebook=("simplices_notebook.json", (*_NOTEBOOK_INPUT, "cv")),
    ),
    Metric("Simplices", "simplices.json", "predicted_cv", "formula", (*_SIMPLEX, "predicted_cv")),
    Metric(
        "Simplices",
        "simplices.json",
        "volume_ratio",
        "volume / per-dimension null",
        (*_PER_DIMENSION, "value"),
        (*_PER_DIMENSION, "low"),
        (*_PER_DIMENSION, "high"),
        notebook=("simplices_notebook.json", (*_NOTEBOOK_INPUT, "ratio_dimension_std")),
    ),
    Metric(
        "Layers",
        "layers.json",
        "last_cosine_across",
        "cosine across texts",
        (*_LAST, "cosine_across"),
        (*_LAST, "cosine_across_low"),
        (*_LAST, "cosine_across_high"),
    ),
    Metric(
        "Layers",
        "layers.json",
        "last_cosine_within",
        "cosine within",
        (*_LAST, "cosine_within"),
        (*_LAST, "cosine_within_low"),
        (*_LAST, "cosine_within_high"),
        null=(*_LAST, "cosine_across"),
    ),
    Metric(
        "Layers",
        "layers.json",
        "last_participation",
        "participation",
        (*_LAST, "participation_unbiased"),
        (*_LAST, "participation_unbiased_low"),
        (*_LAST, "participation_unbiased_high"),
    ),
    Metric(
        "Lexicon",
        "lexicon.json",
        "matched_tokens",
        "words",
        ("n_words",),
        notebook=("lexicon_notebook.json", ("n_tokens",)),
    ),
    Metric(
        "Lexicon",
        "lexicon.json",
        "static_pearson",
        "r, embeddings",
        (*_STATIC, "pearson"),
        null=(*_STATIC, "pearson_chance_high"),
        p=(*_STATIC, "pearson_p_corrected"),
        notebook=("lexicon_notebook.json", ("static_pearson",)),
    ),
    Metric(
        "Lexicon",
        "lexicon.json",
        "class_purity",
        "purity",
        (*_STATIC, "purity"),
        null=(*_STATIC, "expected_purity"),
        p=(*_STATIC, "purity_p"),
    ),
    _share("q"),
    _share("k"),
    _share("v"),
    Metric(
        "Weights",
        "weights.json",
        "cross_layer_cosine",
        "cosine of layers",
        ("metrics", "cross_layer_cosine"),
        null=("nulls", "cross_layer_cosine"),
    ),
    Metric(
        "Circuits",
        "circuits.json",
        "positive_mass",
        "QK mass > 0",
        (*_MASS, "mean"),
        null=(*_MASS, "random", "mean"),
        p=(*_MASS, "strength_others", "p"),
    ),
    Metric(
        "Circuits",
        "circuits.json",
        "copying",
        "OV copying",
        (*_COPYING, "mean"),
        null=(*_COPYING, "random", "mean"),
        p=(*_COPYING, "strength_others", "p"),
    ),
    Metric("Circuits", "distance_bias.json", "mixed_bias_heads", "mixed bias heads", ("kinds", "mixed")),
)
FILES = tuple(dict.fromkeys(metric.file for metric in METRICS))
NOTEBOOK_FILES = tuple(dict.fromkeys(metric.notebook[0] for metric in METRICS if metric.notebook is not None))


@dataclass(frozen=True)
class Measured:
    """A metric of one model; what a file lacks is None."""

    value: float
    low: float | None = None
    high: float | None = None
    null: float | None = None
    p: float | None = None


def measured(metric: Metric, files: Mapping[str, Any]) -> Measured | None:
    """A metric from the parsed JSON files of a model's results; None where it was not measured."""
    document = files.get(metric.file)
    value = number_at(document, metric.path)
    if value is None:
        return None
    places = (metric.low, metric.high, metric.null, metric.p)
    return Measured(value, *(None if place is None else number_at(document, place) for place in places))


def as_the_notebook(metric: Metric, files: Mapping[str, Any]) -> float | None:
    """What compat=notebook measured."""
    if metric.notebook is None:
        return None
    file, path = metric.notebook
    return number_at(files.get(file), path)


def number_at(document: Any, path: Sequence[Step]) -> float | None:
    """The number at a place of nested values; None where there is none. Whole numbers stay whole."""
    for step in path:
        if isinstance(step, Where):
            records = document if isinstance(document, list) else []
            document = next(
                (each for each in records if isinstance(each, dict) and each.get(step.field) == step.value), None
            )
        elif isinstance(step, int):
            document = document[step] if isinstance(document, list) and -len(document) <= step < len(document) else None
        else:
            document = document.get(step) if isinstance(document, dict) else None
    return document if isinstance(document, int | float) and not isinstance(document, bool) else None
