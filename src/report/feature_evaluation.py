"""What eval.py shows of single features: how well each pair predicts them, and which are transported or synthesised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from src.features.predicting.assessments import ASSESSMENTS, GRADES, calibration_summary, quality
from src.features.predicting.intervals import median
from src.features.predicting.pair_scores import FeatureScores
from src.report.artifact_report import NamedChart
from src.report.by_offset import figures_by_offset, pair_cells, pair_columns
from src.report.feature_files import Scores, feature_records
from src.report.figures.heatmap import pair_heatmap
from src.report.figures.transported_features import feature_quantiles, source_heatmap
from src.report.tables import Cell, Interval, Table
from src.transport.pairs import LayerPair

# of each target layer, at both ends of the scale: on the terminal, and on the page
_FEW, _MANY = 3, 10
_MOST_DRAWN = 40
_FEWEST_ACTIVE = 20  # tokens: a feature that fires less often tops no list


@dataclass(frozen=True)
class FeatureReport:
    """The scores of all pairs. tokens: whose projections the tables show, "active" or "all".

    sources: by target layer and offset, where the list of features came from. cards: the file of their cards, by
    target layer; carded: which features have one there.
    """

    scores: Scores
    tokens: str
    sources: Mapping[int, str]
    cards: Mapping[int, str]
    carded: Mapping[int, frozenset[int]]

    @property
    def targets(self) -> dict[tuple[int, int], list[LayerPair]]:
        """The pairs that lead to each target layer and offset, from the nearest source to the farthest."""
        found: dict[tuple[int, int], list[LayerPair]] = {}
        for pair in sorted(self.scores, key=lambda pair: (pair.L + pair.k, pair.offset, pair.k)):
            found.setdefault((pair.L + pair.k, pair.offset), []).append(pair)
        return found


def _interval(scores: FeatureScores, column: str, place: int) -> Interval:
    return {
        "value": float(scores[column][place]),
        "low": _end(scores, column, "low", place),
        "high": _end(scores, column, "high", place),
    }


def _end(scores: FeatureScores, column: str, end: str, place: int) -> float:
    return float(scores[f"{column}_{end}"][place])


def _median(scores: FeatureScores, column: str) -> Interval:
    value, low, high = scores.medians[column]
    return {"value": value, "low": low, "high": high}


def _plain_median(values: torch.Tensor) -> float:
    return float(median(values[values.isfinite()])) if values.isfinite().any() else float("nan")


def pair_table(report: FeatureReport) -> Table:
    """One row per pair: medians over the features."""
    pairs, rows = list(report.scores), []
    for pair, scores in report.scores.items():
        rows.append(
            [
                *pair_cells(pair, pairs),
                int((scores["active_n"] > 0).sum()),
                _median(scores, "latent_r2"),
                _plain_median(scores["latent_r2_identity_shift"]),
                _median(scores, "latent_skill"),
                _median(scores, "f1"),
                *(scores.medians[f"{tokens}_r2_lat"][0] for tokens in ("all", "active", "predicted")),
            ]
        )
    columns = [*pair_columns(pairs), "features", "R² latent", "shift", "skill", "F1", "R² all", "active", "predicted"]
    return Table("Features through the operators", columns, rows, _pair_caption(report))


def _pair_caption(report: FeatureReport) -> str:
    lists = [source for source in dict.fromkeys(report.sources.values()) if source != "all"]
    which = f" Features: {', '.join(lists)}." if lists else ""
    return (
        f"Medians over the features that fire in the test documents.{which} R² latent: of their activations, encoded "
        "from the prediction against encoded from the truth, all tokens; shift: the same of identity + shift; skill: "
        "1 - SSE / SSE of the identity. F1: of firing. R² all, active, predicted: of the projection onto the decoder "
        "direction, at all tokens, where the feature truly fires, and where it fires in the prediction; picked by the "
        "truth, tokens have a narrow range, and R² is low even of good predictions. 95 % intervals over documents."
    )


def baseline_table(report: FeatureReport) -> Table:
    """One row per pair and predictor: medians over the features, for the page."""
    pairs, rows = list(report.scores), []
    for pair, scores in report.scores.items():
        for name, end in (
            ("operator", ""),
            ("identity + shift", "_identity_shift"),
            ("identity", "_identity"),
            ("mean", "_mean"),
        ):
            of_tokens = (
                f"{tokens}_{metric}{end}" for tokens in ("all", report.tokens) for metric in ("r2_lat", "r_pearson")
            )
            names = [f"latent_r2{end}", f"precision{end}", f"recall{end}", f"f1{end}", *dict.fromkeys(of_tokens)]
            names += [f"{report.tokens}_rms_ratio{end}"]
            rows.append([*pair_cells(pair, pairs), name, *(_plain_median(scores[column]) for column in names)])
    columns = [*pair_columns(pairs), "predictor", "R² latent", "precision", "recall", "F1", "R² all", "r all"]
    columns += ["R² active", "r active"] if report.tokens == "active" else []
    caption = (
        "Medians over the features that have a value. r: Pearson's correlation of the projections; RMS ratio: of "
        "predicted and true projections."
    )
    return Table("Features: every predictor", [*columns, "RMS ratio"], rows, caption)


def calibration_table(report: FeatureReport) -> Table:
    """One row per pair: how many features are well calibrated, in the reference's terms."""
    pairs, rows = list(report.scores), []
    for pair, scores in report.scores.items():
        summary = calibration_summary(record for _, record in feature_records(scores, report.tokens, None))
        activity, by_kind = summary["activation_summary"], summary["assessments_by_kind"]
        rows.append(
            [
                *pair_cells(pair, pairs),
                *(summary["assessments"][grade] for grade in GRADES),
                *(quality(by_kind[kind]) for kind in ASSESSMENTS),
                summary.get("overall_quality_score"),
                activity["never_activated_features"],
                activity["rarely_active_features"],
            ]
        )
    columns = [*pair_columns(pairs), *GRADES, *ASSESSMENTS, "overall", "never active", "rarely"]
    where = "where they truly fire" if report.tokens == "active" else "at all tokens"
    caption = (
        f"Projections {where}. excellent to poor: features by the ratio of predicted to true RMS. rms to consistency: "
        "share of excellent features and 0.7 of the share of good ones, by RMS ratio, mean absolute value, mean, "
        "relative error and log ratio; overall: their mean. rarely: fires on at most 1 % of the tokens."
    )
    return Table("Calibration of the features", columns, rows, caption)


def origin_table(report: FeatureReport, n: int) -> Table:
    """The n most transported and the n most synthesised features of each target layer."""
    rows: list[list[Cell]] = []
    has_offsets = any(pair.offset for pair in report.scores)
    for (layer, offset), pairs in report.targets.items():
        near, far = report.scores[pairs[0]], report.scores[pairs[-1]]
        for kind, places in _ends(near, far, n).items():
            for place in places:
                feature = int(near.ids[place])
                rows.append(
                    [
                        layer, *([offset] if has_offsets else []), kind, _link(report, layer, feature),
                        float(near["activation_rate"][place]), _interval(near, "latent_r2", place),
                        *([_interval(far, "latent_r2", place)] if len(pairs) > 1 else [None]),
                        _interval(near, "latent_skill", place), float(near["f1"][place]),
                        float(near["all_r2_lat"][place]),
                    ]
                )  # fmt: skip
    columns = [
        "layer",
        *(["offset"] if has_offsets else []),
        "kind",
        "feature",
        "fires on",
        "R² latent, nearest",
        "farthest source",
    ]
    columns += ["skill, nearest", "F1", "R² all tokens"]
    return Table("Transported or synthesised", columns, rows, _origin_caption(report))


def _origin_caption(report: FeatureReport) -> str:
    cards = "; ".join(report.cards.values())
    where = f"Cards: {cards}." if cards else "For their cards run explain_features.py, then this with overwrite=true."
    return (
        "The two ends of each target layer's features, however near they are. Transported: the lower end of the "
        "interval of R² latent is highest from the farthest source layer there is an operator of. Synthesised: its "
        "upper end is lowest from the nearest, and, where that is 0 or below, the upper end of F1's: its prediction "
        "does not tell when the feature fires (R² far below 0: it fires where it should not). "
        f"Only features that fire on at least {_FEWEST_ACTIVE} test tokens of several "
        "documents. F1 and R² at all tokens: from the nearest. They are picked by the numbers that are shown, so in "
        f"other documents those at either end lie nearer to the middle. {where}"
    )


def _ends(near: FeatureScores, far: FeatureScores, n: int) -> dict[str, list[int]]:
    """Places of the features at both ends; none stands at both."""
    low, high = far["latent_r2_low"], near["latent_r2_high"]
    is_told = (near["active_n"] >= _FEWEST_ACTIVE) & low.isfinite() & high.isfinite()
    places = is_told.nonzero()[:, 0]
    n = min(n, len(places) // 2)
    transported = places[low[places].argsort(descending=True, stable=True)][:n].tolist()
    rest = [place for place in places.tolist() if place not in transported]

    def order(place: int) -> tuple[float, float]:
        return max(float(high[place]), 0.0), float(near["f1_high"][place])

    return {"transported": transported, "synthesised": sorted(rest, key=order)[:n]}


def _link(report: FeatureReport, layer: int, feature: int) -> Cell:
    if feature not in report.carded.get(layer, ()):
        return f"#{feature}"
    return {"text": f"#{feature}", "href": f"{report.cards[layer]}#feature-{feature}"}


def feature_figures(report: FeatureReport) -> list[NamedChart]:
    """Medians over (L, k), how features are spread, and feature x source layer for each target."""
    figures = figures_by_offset(list(report.scores), lambda pairs: _pair_figures(report, pairs))
    for (layer, offset), pairs in report.targets.items():
        if len(pairs) < 2:
            continue
        chosen = _drawn([report.scores[pair] for pair in pairs])
        records = [
            {"feature": int(scores.ids[place]), "source": pair.L, "rank": rank, **_cell(scores, place)}
            for pair in pairs
            for scores in [report.scores[pair]]
            for rank, place in enumerate(chosen)
        ]
        after = f" at token {offset:+d}" if offset else ""
        most = " that fire most often" if len(chosen) == _MOST_DRAWN else ""
        caption = (
            f"Test documents; the {len(chosen)} features{most}, those that earlier layers tell best on top. Along a "
            "row R² rises at the layer that writes the feature into the stream."
        )
        figures.append(
            NamedChart(
                f"feature_sources_{layer}{f'_j{offset:+d}'.replace('+', 'p').replace('-', 'm') if offset else ''}",
                f"Where the features of layer {layer}{after} come from",
                source_heatmap(records, f"R² of features of layer {layer}{after} from earlier layers"),
                caption,
            )
        )
    return figures


def _cell(scores: FeatureScores, place: int) -> dict[str, float]:
    names = {"r2": "latent_r2", "low": "latent_r2_low", "high": "latent_r2_high", "f1": "f1", "rate": "activation_rate"}
    return {name: float(scores[column][place]) for name, column in names.items()}


def _drawn(scores: Sequence[FeatureScores]) -> list[int]:
    """Places of the features that fire most often, sorted by their mean R2 over the sources."""
    rate = scores[0]["active_n"]
    told = torch.stack([each["latent_r2"] for each in scores]).clamp(min=-1).mean(0)
    places = [place for place in rate.argsort(descending=True, stable=True).tolist() if rate[place] >= _FEWEST_ACTIVE]
    return sorted(places[:_MOST_DRAWN], key=lambda place: -float(told[place]))


def _pair_figures(report: FeatureReport, pairs: list[LayerPair]) -> list[NamedChart]:
    cells, quantiles = [], []
    for pair in pairs:
        scores = report.scores[pair]
        value, low, high = scores.medians["latent_r2"]
        place = {"layer": pair.L, "leap": pair.k}
        cells.append({**place, "r2": value, "r2_low": low, "r2_high": high})
        for name, column in (
            ("latent, all tokens", "latent_r2"), ("projection, all tokens", "all_r2_lat"),
            ("projection, feature truly active", "active_r2_lat"), ("projection, predicted active", "predicted_r2_lat"),
        ):  # fmt: skip
            values = scores[column][(scores["active_n"] >= 2) & scores[column].isfinite()]
            if len(values):
                points = torch.quantile(values, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).to(values)).tolist()
                quantiles.append(
                    {**place, "of": name, **dict(zip(("q05", "q25", "q50", "q75", "q95"), points, strict=True))}
                )
    return [
        NamedChart(
            "feature_r2",
            "R² of features over (L, k)",
            pair_heatmap(cells, "r2", "Median R² of feature activations", label="R²"),
            "Median over the features of the target layer's SAE that fire in the test documents, with 95 % intervals.",
        ),
        NamedChart(
            "feature_spread",
            "How features differ",
            feature_quantiles(quantiles),
            "Over the features that fire: the R² of a feature depends on the tokens that it is taken over. Where the "
            "feature truly fires its values have a narrow range, which lowers R² whatever the operator does.",
        ),
    ]


def feature_metrics(report: FeatureReport) -> dict[str, float]:
    """Medians by name, for experiment trackers."""
    names = ("latent_r2", "latent_skill", "f1", "all_r2_lat", "active_r2_lat")
    return {
        f"{pair}/features/{name}": scores.medians[name][0] for pair, scores in report.scores.items() for name in names
    }


def feature_tables(report: FeatureReport) -> list[Table]:
    """For the terminal."""
    return [pair_table(report), calibration_table(report), origin_table(report, _FEW)]


def feature_details(report: FeatureReport) -> list[Table]:
    """For the page alone."""
    return [baseline_table(report), origin_table(report, _MANY)]
