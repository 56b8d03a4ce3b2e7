"""What align_models.py found, and its records and files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from scipy.stats import spearmanr

from src.geometry.alignment.alignment import Alignment, MapResult
from src.geometry.alignment.fitting import TESTED
from src.geometry.alignment.notebook import NotebookAlignment
from src.geometry.alignment.ordered import OrderedAgreement
from src.geometry.alignment.relations import Relations
from src.geometry.simplices.joint import JointStatistics
from src.geometry.simplices.statistics import volume_statistics

# of the words of an ordered set, which were kept from the map
TOGETHER, ONE_BY_ONE, OCCURRENCES = "all", "each alone", "documents"


@dataclass(frozen=True, eq=False)
class OrderedResult:
    """An ordered set after the best map.

    kept_out: all words of all sets; each alone (a map for each word, fitted on all others); or documents, not words.
    q: corrected p-values of `cosine`, `at_home`, `structure` and `steps`.
    """

    agreement: OrderedAgreement
    kept_out: str
    q: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Aligned:
    """All that is shown of an alignment.

    labels, source_ids, target_ids: of the test tokens. coverage: how pairing went, pairing: the same in words. unit:
    what intervals draw. widths: of both spaces. left_out: methods that the anchors do not determine.
    """

    names: tuple[str, str]
    space: str
    alignment: Alignment
    ordered: Sequence[OrderedResult]
    ordered_are_new: bool
    volumes: JointStatistics | None
    labels: list[str]
    source_ids: Int[np.ndarray, " token"]
    target_ids: Int[np.ndarray, " token"]
    coverage: Mapping[str, Any]
    pairing: str
    unit: str
    widths: tuple[int, int]
    left_out: Sequence[str]
    notebook: NotebookAlignment | None
    settings: Mapping[str, Any]

    @property
    def best(self) -> MapResult:
        """The fitted map that explains most of the validation pairs."""
        return self.alignment.maps[self.alignment.best]


def score_records(alignment: Alignment) -> list[dict[str, Any]]:
    """One record for each map and score: value, interval, what shuffled pairs give, p and q."""
    records = []
    for name, result in alignment.maps.items():
        for score, interval in result.intervals.items():
            record = {"map": name, "fitted": result.fitted, "score": score, **asdict(interval)}
            record["chance"] = alignment.chance(int(score.rpartition("_")[2])) if "p_at_" in score else None
            null = result.null.get(score)
            record |= dict(zip(("null_mean", "null_low", "null_high"), null_range(null), strict=True))
            records.append(record | {"p": result.p.get(score), "q": result.q.get(score)})
        records.append({"map": name, "fitted": result.fitted, "score": "anchor_cosine", "value": result.anchor_cosine})
    return records


def null_range(null: np.ndarray | None) -> tuple[float | None, float | None, float | None]:
    """Mean and middle 95 % of draws."""
    if null is None:
        return None, None, None
    low, high = np.percentile(null, [2.5, 97.5]).tolist()
    return float(null.mean()), low, high


def token_records(found: Aligned) -> list[dict[str, Any]]:
    """One record for each test token: its cosines under each map."""
    cosines = {f"cosine_{name}": result.scores.cosine for name, result in found.alignment.maps.items()}
    raw, distance = found.best.scores.raw_cosine, found.best.scores.distance
    return [
        {
            "token": label,
            "source_id": int(found.source_ids[place]),
            "target_id": int(found.target_ids[place]),
            **{name: float(values[place]) for name, values in cosines.items()},
            "raw_cosine": float(raw[place]),
            "distance": float(distance[place]),
        }
        for place, label in enumerate(found.labels)
    ]


def curve_records(alignment: Alignment) -> list[dict[str, Any]]:
    """One record for each method and number of anchors."""
    return [
        {"map": point.method, "anchors": point.anchors, "score": score, **asdict(getattr(point, score))}
        for point in alignment.curve
        for score in TESTED
    ]


def spectrum_records(found: Aligned) -> list[dict[str, Any]]:
    """Shares of the target's variance by component: of the target itself, and of what each map leaves of it."""
    sides = {"target": found.alignment.spectrum}
    sides |= {name: result.spectrum for name, result in found.alignment.maps.items() if result.fitted}
    return [
        {"of": name, "component": place, "share": share}
        for name, spectrum in sides.items()
        for place, share in enumerate(spectrum.tolist(), start=1)
    ]


def ordered_record(each: OrderedResult) -> dict[str, Any]:
    """One ordered set."""
    values = {key: value for key, value in vars(each.agreement).items() if key not in ("own", "within", "tokens")}
    lists = {"tokens": list(each.agreement.tokens), "own": each.agreement.own.tolist()}
    values["kept_out"] = each.kept_out
    return {**values, **{f"{test}_q": q for test, q in each.q.items()}, **lists}


def map_tensors(alignment: Alignment) -> dict[str, torch.Tensor]:
    """Weights and centres: row x goes to (x - source_centre) weight + target_centre, float32."""
    first = next(iter(alignment.maps.values())).map
    tensors = {"source_centre": first.source_centre, "target_centre": first.target_centre}
    tensors |= {f"{name}.weight": result.map.weight for name, result in alignment.maps.items() if result.fitted}
    return {name: tensor.float().cpu() for name, tensor in tensors.items()}


def by_id(found: Aligned) -> dict[str, float]:
    """Spearman's r of a held-out token's cosine with its id, which in most vocabularies grows with rarity."""
    result: Any = spearmanr(found.source_ids, found.best.scores.cosine)
    return {"spearman": float(result.statistic), "p": float(result.pvalue)}


def above(found: Aligned) -> dict[str, float]:
    """Shares of held-out tokens whose cosine is above 0, 0.1, ..., 0.9 (spec F6, without anchors and unused rows)."""
    cosine = found.best.scores.cosine
    return {f"{place / 10:g}": float((cosine > place / 10).mean()) for place in range(10)}


def as_json(found: Aligned) -> dict[str, Any]:
    """Every scalar."""
    alignment = found.alignment
    maps = {}
    for name, result in alignment.maps.items():
        maps[name] = {
            "fitted": result.fitted,
            "settings": dict(result.map.settings),
            "anchor_cosine": result.anchor_cosine,
            "held_out": {score: asdict(interval) for score, interval in result.intervals.items()},
            "summaries": result.summaries,
            "shuffled_pairs": {
                score: dict(zip(("mean", "low", "high"), null_range(null), strict=True))
                for score, null in result.null.items()
            },
            "p": dict(result.p),
            "q": dict(result.q),
            "relations": None if result.relations is None else asdict(result.relations),
        }
    return {
        "source": found.names[0],
        "target": found.names[1],
        "space": found.space,
        "widths": list(found.widths),
        "pairing": dict(found.coverage),
        "counts": dict(alignment.counts),
        "best": alignment.best,
        "left_out": list(found.left_out),
        "ceiling": alignment.ceiling,
        "retrieval": {"queries": alignment.n_queries, "candidates": alignment.n_candidates},
        "interval_units": {"what": found.unit, "number": alignment.n_units},
        "maps": maps,
        "relations": {"raw": asdict(alignment.raw), "centred": asdict(alignment.centred)},
        "ordered_sets": [ordered_record(each) for each in found.ordered],
        "ordered_sets_are_new": found.ordered_are_new,
        "volumes": volumes_json(found.volumes),
        "cosine_by_id": by_id(found),
        "share_above": above(found),
        "settings": dict(found.settings),
    }


def volumes_json(volumes: JointStatistics | None) -> dict[str, Any] | None:
    """The volumes of the same simplices in both spaces."""
    if volumes is None:
        return None
    sides = [volume_statistics(volumes.log_pairs[:, side]) for side in (0, 1)]
    values = {key: value for key, value in asdict(volumes).items() if key != "log_pairs"}
    named = dict(zip(("predicted", "target"), (asdict(side) for side in sides), strict=True))
    return {**values, **named, "ratio": float(np.exp(sides[0].log_mean - sides[1].log_mean))}


def relation_rows(found: Aligned) -> list[tuple[str, Relations]]:
    """Agreement without any map, and after the maps that change it."""
    rows = [("as they are", found.alignment.raw), ("centred", found.alignment.centred)]
    for name, result in found.alignment.maps.items():
        # turning and scaling change no cosine: one row says what the source's components give
        is_copy = name in ("scaled", "identity", "components") and "orthogonal" in found.alignment.maps
        if result.relations is not None and (result.fitted or not is_copy) and not is_copy:
            rows.append((f"after {name}", result.relations))
    return rows


def metrics(found: Aligned) -> dict[str, float]:
    """For trackers."""
    best = {f"best/{score}": interval.value for score, interval in found.best.intervals.items()}
    every = {
        f"{name}/{score}": result.intervals[score].value
        for name, result in found.alignment.maps.items()
        for score in ("cosine", "explained", "csls_p_at_1")
    }
    relations = {
        "relations/pearson_raw": found.alignment.raw.pearson.value,
        "relations/pearson_centred": found.alignment.centred.pearson.value,
        "relations/debiased_cka": found.alignment.centred.debiased_cka.value,
    }
    ordered = {
        f"ordered/{each.agreement.name}/{each.kept_out}/cosine".replace(" ", "_"): each.agreement.cosine
        for each in found.ordered
    }
    return {**best, **every, **relations, **ordered}
