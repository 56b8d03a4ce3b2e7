"""What the published notebook computes of embeddings, mistakes included, to set its numbers beside ours.

Two variants stand in it, for T5 and for Qwen3.5 (spec A). Known mistakes that are kept: padding rows
are counted; cosines, distances and (Qwen) eigenvalues come from samples; a digit of several pieces is its first piece
(BUG A-1); character classes are ids 48-57, 65-90 and 97-122, and special tokens the last 100 rows (BUG A-2). Left out:
its eight word lists, whose words the published copy does not tell, and what it compares with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.geometry.directions import unit_rows
from src.geometry.embedding.norms import NEAR_ZERO
from src.geometry.embedding.ordered_sets import cosine_matrix
from src.geometry.embedding.rows import Rows
from src.geometry.embedding.spectrum import SHARES, dimensions_for
from src.geometry.participation import participation_ratio
from src.geometry.percentiles import PERCENTILES

SEED = 42


@dataclass(frozen=True)
class Variant:
    """spectrum_rows: sample for the eigenvalues; None = all rows, with divisor n instead of n - 1."""

    name: Literal["t5", "qwen"]
    cosine_references: tuple[float, ...]
    spectrum_rows: int | None
    top_eigenvalues: int


T5 = Variant("t5", (0.0, 0.19471, 0.29514, 0.5), None, 5)
QWEN = Variant("qwen", (0.0, 0.1, 0.2, 0.29514, 0.3, 0.5, 0.7, 0.9), 10_000, 20)
VARIANTS = (T5, QWEN)
COSINE_ROWS, DISTANCE_ROWS = 5_000, 2_000
# BUG A-2: codes of ASCII characters taken for ids of a byte-level vocabulary
ID_CATEGORIES: Mapping[str, range] = {
    "ASCII digits": range(48, 58),
    "ASCII upper case": range(65, 91),
    "ASCII lower case": range(97, 123),
}
TAIL = 100
SENTINELS = 5


def as_the_notebook(
    variant: Variant,
    table: Float64[Tensor, "row d_model"] | Tensor,
    output: Tensor | None,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> dict[str, Any]:
    """All quantities of section A that can be computed again, by name; nested dicts of plain numbers."""
    rows = Rows(table, np.arange(len(table)), device)
    cosines = _cosines(rows, variant)
    found: dict[str, Any] = {
        "variant": variant.name,
        "seed": SEED,
        "rows": len(rows),
        "norms": _norms(rows),
        "cosines": cosines,
        "spectrum": _spectrum(rows, variant),
        "distances": _distances(rows, variant),
        "digits": _digits(rows, tokenizer),
    }
    if variant.name == "t5":
        found["special_tokens"] = _special(rows, tokenizer)
    else:
        found["categories"] = _id_categories(rows, cosines["mean"])
    if output is not None and output.shape == table.shape:
        found["input_output"] = _input_output(rows, Rows(output, rows.ids, device), output is table)
    return found


def first_pieces(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """BUG A-1: the first id of each word, which may be the bare word boundary, the same for all of them."""
    return [int(tokenizer.encode(word, add_special_tokens=False)[0]) for word in words]


def _norms(rows: Rows) -> dict[str, Any]:
    norms, total, squares = np.empty(len(rows)), 0.0, 0.0
    for places, block in rows.blocks():
        norms[places] = block.norm(dim=1).cpu().numpy()
        total, squares = total + block.sum(0), squares + block.square().sum(0)
    mean = torch.as_tensor(total) / len(rows)
    std = ((torch.as_tensor(squares) / len(rows) - mean.square()).clamp_min(0)).sqrt()
    return {
        **_spread(norms),
        "near_zero": int((norms < NEAR_ZERO).sum()),
        "dimension_mean": float(mean.mean()),
        "dimension_mean_std": float(mean.std(correction=0)),
        "dimension_std": float(std.mean()),
        "dimension_std_std": float(std.std(correction=0)),
    }


def _cosines(rows: Rows, variant: Variant) -> dict[str, Any]:
    values = _pairs(cosine_matrix(rows.take(_sample(rows, COSINE_ROWS))))
    near = {
        str(reference): float((np.abs(values - reference) < 0.01).mean()) for reference in variant.cosine_references
    }
    return {**_spread(values), "share_within_0.01": near}


def _spectrum(rows: Rows, variant: Variant) -> dict[str, Any]:
    ids = rows.ids if variant.spectrum_rows is None else _sample(rows, variant.spectrum_rows)
    chosen = Rows(rows.table, ids, rows.device)
    total = sum((block.sum(0) for _, block in chosen.blocks()), start=torch.zeros((), dtype=torch.float64))
    mean = torch.as_tensor(total) / len(chosen)
    products = torch.zeros(rows.width, rows.width, dtype=torch.float64)
    for _, block in chosen.blocks():
        products += ((block - mean).T @ (block - mean)).cpu()
    covariance = products / (len(chosen) - (variant.spectrum_rows is not None))
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0).clamp_min(0).numpy()
    participation = participation_ratio(float(eigenvalues.sum()), float(np.square(eigenvalues).sum()))
    return {
        "rows": len(chosen),
        "total_variance": float(eigenvalues.sum()),
        "top": eigenvalues[: variant.top_eigenvalues].tolist(),
        "participation": participation,
        "participation_share": participation / rows.width,
        "dimensions": {str(percent): dimensions_for(eigenvalues, percent / 100) for percent in SHARES},
    }


def _distances(rows: Rows, variant: Variant) -> dict[str, Any]:
    chosen = rows.take(_sample(rows, DISTANCE_ROWS))
    values = _pairs(torch.cdist(chosen, chosen).cpu().numpy())
    found = _spread(values) | {"cv": float(values.std() / values.mean())}
    if variant.name == "qwen":
        found["mean_by_sqrt_d"] = found["mean"] / rows.width**0.5
    return found


def _digits(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    tokens = first_pieces(tokenizer, "0123456789")
    cosines = cosine_matrix(rows.take(np.array(tokens)))
    steps, values = _pairs(np.abs(np.subtract.outer(np.arange(10), np.arange(10)))), _pairs(cosines)
    # cosines that are all 1 correlate with nothing
    pearson = float(np.corrcoef(steps, values)[0, 1]) if values.std() > 1e-12 else None
    adjacent, further = float(values[steps == 1].mean()), float(values[steps > 1].mean())
    return {
        "tokens": tokens, "pearson": pearson, "adjacent": adjacent, "further": further, "gap": adjacent - further,
    }  # fmt: skip


def _id_categories(rows: Rows, overall: float) -> dict[str, Any]:
    ranges = {**ID_CATEGORIES, "special tokens (tail)": range(max(len(rows) - TAIL, 0), len(rows))}
    found = {}
    for name, ids in ranges.items():
        there = np.array([token for token in ids if token < len(rows)])
        if len(there) >= 2:
            cosine = float(_pairs(cosine_matrix(rows.take(there))).mean())
            found[name] = {"n": len(there), "cosine": cosine, "lift": cosine - overall}
    return found


def _special(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    names = [f"<extra_id_{number}>" for number in range(SENTINELS)]
    sentinels = [tokenizer.convert_tokens_to_ids(name) for name in names if name in tokenizer.get_vocab()]
    named = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    tokens = list(
        dict.fromkeys(int(token) for token in [*named, *sentinels] if token is not None and token < len(rows))
    )
    if not tokens:
        return {"tokens": []}
    chosen = rows.take(np.array(tokens))
    return {"tokens": tokens, "norms": chosen.norm(dim=1).tolist(), "cosines": cosine_matrix(chosen).tolist()}


def _input_output(inputs: Rows, outputs: Rows, tied: bool) -> dict[str, Any]:
    cosines, squares = np.empty(len(inputs)), torch.zeros(3, dtype=torch.float64)
    for (places, first), (_, second) in zip(inputs.blocks(), outputs.blocks(), strict=True):
        cosines[places] = (unit_rows(first) * unit_rows(second)).sum(1).cpu().numpy()
        squares += torch.stack([block.square().sum().cpu() for block in (first, second, first - second)])
    norms = squares.sqrt().tolist()
    return {
        "tied": tied,
        "cosine": {key: value for key, value in _spread(cosines).items() if key in ("mean", "std", "min", "max")},
        "input_norm": norms[0],
        "output_norm": norms[1],
        "difference": norms[2],
        "relative_difference": norms[2] / norms[0],
    }


def _sample(rows: Rows, most: int) -> Int[np.ndarray, "token"]:
    """Each section draws anew from the notebook's seed."""
    return np.random.default_rng(SEED).choice(len(rows), min(most, len(rows)), replace=False)


def _pairs(matrix: np.ndarray) -> np.ndarray:
    above: Bool[np.ndarray, "n n"] = np.triu(np.ones(matrix.shape, bool), 1)
    return matrix[above]


def _spread(values: np.ndarray) -> dict[str, Any]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
        "percentiles": dict(zip(map(str, PERCENTILES), np.percentile(values, PERCENTILES).tolist(), strict=True)),
    }
