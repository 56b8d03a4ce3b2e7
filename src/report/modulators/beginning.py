"""What a modulator began with, and what became of it."""

from dataclasses import asdict

from src.geometry.alignment.scores import Interval as ScoreInterval
from src.modulators.beginning.begun import Begun
from src.modulators.beginning.lexical import RelationalQuality
from src.modulators.beginning.procrustes import MapQuality
from src.modulators.beginning.reconstruction import Reconstruction
from src.modulators.health import ResidualHealth
from src.modulators.row_health import RowHealth
from src.report.finding import Finding
from src.report.tables import Cell, Interval, Table, format_number

_MEASURES = {"wu_palmer": "Wu-Palmer", "path": "path"}


def beginning_finding(begun: Begun) -> Finding | None:
    """How good a beginning's vectors and map are on words that took no part; None where there is nothing to judge."""
    relations, found = begun.relations, begun.map
    if relations is None:
        return None
    tables = [_relation_table(relations)]
    texts = [_relation_words(relations)]
    if found is not None:
        tables.append(_map_table(found))
        texts.append(_map_words(found))
    return Finding(
        "\n\n".join(texts),
        details=tables,
        files={"beginning.json": {"relations": _relations_json(relations), "map": _map_json(found)}},
    )


def health_finding(health: ResidualHealth) -> Finding:
    """Vectors and targets after training."""
    vectors, targets = health.vectors, health.targets
    words = (
        f"{health.n_known:,} of {health.d_vocab:,} tokens have vectors, with a mean cosine of "
        f"{format_number(vectors.cosine_mean)} (0 if they were spread evenly) and "
        f"{format_number(vectors.participation)} of {vectors.width} dimensions in use (participation ratio); their "
        f"targets in the residual stream have {format_number(targets.cosine_mean)} and "
        f"{format_number(targets.participation)} of {targets.width}. Other tokens are left as they are."
    )
    columns = ["of known tokens", "rows", "cosine", "sd", "length", "sd ", "dimensions", "of"]
    rows = [_row(name, of) for name, of in (("vectors G", vectors), ("targets P g + b", targets))]
    caption = "Cosines over all pairs. Dimensions: participation ratio, without the bias of the number of rows."
    return Finding(
        words,
        details=[Table("Vectors and targets", columns, rows, caption)],
        files={"health.json": health.to_json()},
    )


def _row(name: str, of: RowHealth) -> list[Cell]:
    return [
        name, of.n, of.cosine_mean, of.cosine_sd, of.length_mean, of.length_sd, of.participation, of.width,
    ]  # fmt: skip


def _relation_words(found: RelationalQuality) -> str:
    held_out, measure = found.held_out, _MEASURES[found.similarity]
    return (
        f"Before training, the vectors of {held_out.n_words} evaluated words follow their {measure} similarities with "
        f"r = {_written(held_out)}, where their own embeddings have {_written(found.static)} and shuffled words stay "
        f"below {format_number(held_out.null_high)} (95 %; p = {held_out.p:.3g}). They are interpolated from "
        f"{found.n_anchors} anchors, none of which shares a sense with them; the anchors' own similarities are "
        f"reproduced with r = {format_number(found.anchors.r)}, which says only whether "
        f"{len(found.eigenvalues)} directions are enough. What all words have in common, "
        f"{100 * found.removed:.0f} % of all similarity, is taken away first. Lengths are kept: "
        f"{_lengths(found)}."
    )


def _lengths(found: RelationalQuality) -> str:
    own, others = found.anchor_lengths, found.interpolated_lengths
    return (
        f"{format_number(own.mean)} (sd {format_number(own.sd)}) of anchors, {format_number(others.mean)} "
        f"(sd {format_number(others.sd)}) of interpolated words"
    )


def _map_words(found: MapQuality) -> str:
    held_out = found.held_out
    beats = "more than" if found.p < 0.05 else "no more than"
    return (
        f"Turned onto the residual stream, vectors of {found.n_held_out} evaluated words point to the model's states "
        f"of them with a mean cosine of {format_number(held_out.value)} [{format_number(held_out.low)}, "
        f"{format_number(held_out.high)}], {beats} maps of shuffled anchors, which reach "
        f"{format_number(found.null_high)} (95 %; p = {found.p:.3g}). Over the {found.n_anchors} anchors that it was "
        f"fitted on it is {format_number(found.fitted)}, which chance alone makes large. Cosines are about the "
        f"anchors' mean; with it, {100 * found.shared**2:.0f} % of targets' square length is the same for all words."
    )


def _relation_table(found: RelationalQuality) -> Table:
    rows: list[list[Cell]] = [
        [name, each.n_words, _interval(each), each.null_high, each.p]
        for name, each in (
            ("evaluated words, interpolated", found.held_out),
            ("evaluated words, embeddings", found.static),
            ("anchors (fitted)", found.anchors),
        )
    ]
    return Table(
        f"Cosines against {_MEASURES[found.similarity]} similarities",
        ["words", "n", "r", "null 95 %", "p"],
        rows,
        "Over all pairs of words; jackknife intervals over words. Null: words permuted.",
    )


def _map_table(found: MapQuality) -> Table:
    rows: list[list[Cell]] = [["all", _score(found.held_out), found.null_high]]
    rows += [[layer, _score(each), None] for layer, each in found.by_layer.items()]
    return Table(
        "Targets against states of evaluated words",
        ["input of layer", "cosine", "shuffled anchors, 95 %"],
        rows,
        f"Mean cosine about the anchors' mean over {found.n_held_out} words; bootstrap intervals over words.",
    )


def _written(found: Reconstruction) -> str:
    return f"{format_number(found.r)} [{format_number(found.low)}, {format_number(found.high)}]"


def _interval(found: Reconstruction) -> Interval:
    return {"value": found.r, "low": found.low, "high": found.high}


def _score(found: ScoreInterval) -> Interval:
    return {"value": found.value, "low": found.low, "high": found.high}


def _relations_json(found: RelationalQuality) -> dict[str, object]:
    return asdict(found) | {"eigenvalues": found.eigenvalues.tolist()}


def _map_json(found: MapQuality | None) -> dict[str, object] | None:
    if found is None:
        return None
    by_layer: dict[str, object] = {str(layer): asdict(each) for layer, each in found.by_layer.items()}
    return {**asdict(found), "by_layer": by_layer}
