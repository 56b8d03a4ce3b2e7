"""What is known of an SAE on held-out documents, and its flat record for parquet and JSON."""

import math
from dataclasses import dataclass
from typing import Any

from src.causal.splice import SpliceEffect
from src.features.training.reconstruction import Ratio, Reconstruction
from src.hook_points import HookPoint

SPLICED = ("nll_clean", "nll_spliced", "nll_zero", "nll_mean", "recovered_zero", "recovered_mean")


@dataclass(frozen=True)
class Judgement:
    """An SAE on held-out documents. tokens: that it was trained on by then. splice: None where no model was run."""

    point: HookPoint
    tokens: int
    reconstruction: Reconstruction
    splice: SpliceEffect | None


def judgement_record(judgement: Judgement) -> dict[str, Any]:
    """One record, with `_low` and `_high` for the ends of 95 % intervals; None where no model was run."""
    found, splice = judgement.reconstruction, judgement.splice
    record: dict[str, Any] = {
        "hook": judgement.point.hook,
        "layer": judgement.point.layer,
        "tokens": judgement.tokens,
        **_fields("fvu", found.fvu),
        **_fields("l0", found.l0),
        "dead": found.dead,
        "held_out_tokens": found.n_rows,
        "held_out_documents": found.n_documents,
    }
    for name in SPLICED:
        record |= _fields(name, None if splice is None else getattr(splice, name))
    return record | {"predictions": None if splice is None else splice.n_predictions}


def _fields(name: str, ratio: Ratio | None) -> dict[str, float | None]:
    values = (None, None, None) if ratio is None else (ratio.value, ratio.low, ratio.high)
    keys = (name, f"{name}_low", f"{name}_high")
    return {
        key: value if value is not None and math.isfinite(value) else None
        for key, value in zip(keys, values, strict=True)
    }
