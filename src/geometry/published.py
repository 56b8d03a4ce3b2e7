"""The figures that the notebook states (spec I). Nothing is judged by them: they stand beside what is measured here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFigure:
    """One stated number.

    model: as the notebook names it. value: in the unit of `metric`; with `highest`, the lower end of a stated range.
    caveat: what to know of it before comparing.
    """

    metric: str
    model: str
    value: float
    caveat: str
    highest: float | None = None


_WINDOW = "share of |w| < 0.1, which depends on the weights' scale"
_NULL_VALUE = "what a random matrix gives"

PUBLISHED: tuple[PublishedFigure, ...] = (
    PublishedFigure(
        "participation_share", "Qwen3.5-0.8B", 0.535, "10,000 rows of 248,320: biased low by about 5 % (spec A4)"
    ),
    PublishedFigure("participation_share", "“universal”", 0.53, "text of the field modulator", 0.56),
    PublishedFigure("simplex_cv", "Qwen3.5-0.8B", 0.208, "1,000 simplices: standard error 0.005"),
    PublishedFigure(
        "simplex_cv", "“universal band”", 0.20, "T5 and Qwen; norms with a log spread of 0.11 give it (spec B4)", 0.23
    ),
    PublishedFigure(
        "volume_ratio", "Qwen3.5-0.8B", 0.984, "null with the spread of each dimension, which knows no covariance"
    ),
    PublishedFigure("digit_r", "Qwen3.5-0.8B", -0.862, "|i - j| against cosine; no permutation test"),
    PublishedFigure("mean_cosine", "Qwen3.5-0.8B", 0.19471, "5,000 rows"),
    PublishedFigure("relational_r", "Qwen3.5-4B to 0.8B", 0.920, "500 tokens, before alignment"),
    PublishedFigure("matched_tokens", "T5-Small", 9362, "one token a word; the sense is the first in file order"),
    PublishedFigure("small_q_share", "T5-Small", 0.937, _WINDOW),
    PublishedFigure("small_k_share", "T5-Small", 0.192, _WINDOW),
    PublishedFigure("small_v_share", "T5-Small", 0.121, _WINDOW),
    PublishedFigure("small_q_share", "T5-Base", 0.994, _WINDOW),
    PublishedFigure("small_k_share", "T5-Base", 0.300, _WINDOW),
    PublishedFigure("small_v_share", "T5-Base", 0.162, _WINDOW),
    PublishedFigure("small_q_share", "T5-v1.1-XXL", 1.000, _WINDOW),
    PublishedFigure("small_q_share", "BERT-large", 0.991, _WINDOW),
    PublishedFigure("small_q_share", "DINOv2-large", 1.000, _WINDOW),
    PublishedFigure("small_q_share", "“Q sparsity”", 0.93, f"text of the field modulator; {_WINDOW}", 0.99),
    PublishedFigure("cross_attention_positive_share", "T5-v1.1-XXL", 0.500, f"all 24 layers; {_NULL_VALUE} (spec E4)"),
    PublishedFigure("cross_layer_cosine", "“all 8 models”", 0.000, f"{_NULL_VALUE} (spec E6)"),
    PublishedFigure("mixed_bias_heads", "T5-Small", 0, "decoder position bias (spec E8)"),
    PublishedFigure("mixed_bias_heads", "T5-v1.1-XXL", 0, "decoder position bias (spec E8)"),
)


def published(metric: str) -> list[PublishedFigure]:
    """What is stated of one metric, in the order of the table."""
    return [figure for figure in PUBLISHED if figure.metric == metric]
