"""What train_sae.py shows: how well SAEs reconstruct held-out text, and how they came there."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.config.train_sae import TrainSaeConfig
from src.features.training.reconstruction import Ratio
from src.report.artifact_report import NamedChart
from src.report.figures.sae_training import training_curves
from src.report.findings import span
from src.report.sae_records import Judgement
from src.report.tables import Cell, Interval, Table

_CAPTION = (
    "On test documents, that nothing was trained on; brackets: 95 % intervals over documents. FVU: fraction of "
    "variance unexplained. L0: active features per token. dead: features that fire on none of the tokens. Loss "
    "recovered: with the reconstructions of all counted tokens in place of the activations, 1 = the model's own loss, "
    "0 = that of zeros (or of the mean) in their place."
)


def training_text(config: TrainSaeConfig, d_sae: int, judgements: Sequence[Judgement]) -> str:
    """What was trained, in words."""
    source = "an activation store" if config.source == "store" else f"{config.model.name} as it reads text"
    first = judgements[0]
    fvu = span({str(each.point): each.reconstruction.fvu.value for each in judgements})
    return (
        f"The fraction of variance unexplained on test documents is {fvu}.\n\n"
        f"{len(judgements)} SAEs of {d_sae:,} features ({config.architecture}) on {config.hook} of {config.model.name}"
        f", trained by SAELens on {first.tokens:,} tokens from {source}. Each layer's folder is a SAELens SAE "
        f"(SAE.load_from_disk); weights in {config.storage_dtype}. Scores are of "
        f"{first.reconstruction.n_rows:,} tokens of {first.reconstruction.n_documents:,} test documents."
    )


def training_table(judgements: Sequence[Judgement]) -> Table:
    """One row per SAE."""
    has_splice = any(each.splice is not None for each in judgements)
    columns = ["SAE of", "FVU", "L0", "dead", *(["loss recovered", "of the mean", "NLL"] if has_splice else [])]
    return Table("SAEs", columns, [_row(each, has_splice) for each in judgements], _CAPTION)


def _row(judgement: Judgement, has_splice: bool) -> list[Cell]:
    found, splice = judgement.reconstruction, judgement.splice
    row: list[Cell] = [str(judgement.point), _interval(found.fvu), _interval(found.l0), found.dead]
    if not has_splice:
        return row
    if splice is None:
        return [*row, None, None, None]
    nll = f"{splice.nll_clean.value:.3f} to {splice.nll_spliced.value:.3f}"
    return [*row, _interval(splice.recovered_zero), _interval(splice.recovered_mean), nll]


def _interval(ratio: Ratio) -> Interval:
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high}


def training_figures(curve: Sequence[Mapping[str, Any]]) -> list[NamedChart]:
    """The scores on val documents against the tokens trained on."""
    chart = training_curves(list(curve))
    caption = "Val documents; bands: 95 % intervals over documents. Each line is the SAE of a layer."
    return [NamedChart("training", "Scores over training", chart, caption)]


def training_metrics(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Numbers for a tracker's summary, by hook point."""
    metrics = {}
    for each in judgements:
        found = each.reconstruction
        metrics |= {f"{each.point}/fvu": found.fvu.value, f"{each.point}/l0": found.l0.value}
        metrics[f"{each.point}/dead"] = found.dead
        if each.splice is not None:
            metrics[f"{each.point}/loss_recovered"] = each.splice.recovered_zero.value
    return metrics
