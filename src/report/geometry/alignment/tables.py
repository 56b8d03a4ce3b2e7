"""Tables of an alignment."""

from collections.abc import Sequence

import numpy as np

from src.geometry.alignment.scores import PERCENTILES, Interval
from src.report.geometry.alignment.records import Aligned, above, by_id, null_range, relation_rows, volumes_json
from src.report.tables import Cell, Table, finite_or_none, interval_cell
from src.report.token_text import visible

_LISTED = 20
_LONGEST = 24


def alignment_tables(found: Aligned) -> list[Table]:
    """Scores, relations, ordered sets."""
    tables = [score_table(found), relation_table(found)]
    return [*tables, ordered_table(found)] if found.ordered else tables


def score_table(found: Aligned) -> Table:
    """One row per map, the null of the fitted ones below them."""
    alignment = found.alignment
    rows: list[list[Cell]] = []
    for name, result in alignment.maps.items():
        scores = result.intervals
        # of the mean alone, no cosine is left once it is taken off
        told = name != "mean"
        rows.append(
            [
                name,
                _cell(scores["cosine"]) if told else None,
                _cell(scores["explained"]),
                _cell(scores["csls_p_at_1"]) if told else None,
                _cell(scores["csls_p_at_10"]) if told else None,
                result.anchor_cosine if told else None,
                result.q.get("explained"),
            ]
        )
    for name, result in alignment.maps.items():
        if result.fitted:
            cosine, explained = (null_range(result.null[score]) for score in ("cosine", "explained"))
            rows.append([f"{name}, shuffled", _range(cosine), _range(explained), None, None, None, None])
    rows.append(["chance", None, None, alignment.chance(1), alignment.chance(10), None, None])
    counts = alignment.counts
    caption = (
        f"{counts['test']:,} held-out tokens, {counts['train']:,} anchors, {counts['val']:,} to choose by. cosine: of "
        "predicted and true rows less the anchors' mean; R2: about that mean; CSLS: own token first, or among the "
        "first "
        f"ten, of {alignment.n_candidates:,}; anchors: cosine on the pairs that the map was fitted on; q: R2 against "
        "maps "
        "fitted on shuffled pairs, corrected over maps and scores. components: by rank; mean: of the anchors. "
        "Brackets: "
        f"95 % over {found.unit} (shuffled: of the draws)."
    )
    return Table("Held-out scores", ["map", "cosine", "R2", "CSLS P@1", "CSLS P@10", "anchors", "q"], rows, caption)


def relation_table(found: Aligned) -> Table:
    """Agreement without a map, and of mapped rows."""
    rows: list[list[Cell]] = []
    for name, each in relation_rows(found):
        r, cka = each.pearson, each.debiased_cka
        rows.append([name, _cell(r), r.null_sd, r.p, each.mean_difference, _cell(cka), cka.null_sd])
    caption = (
        f"Over all pairs of {found.alignment.raw.n_tokens:,} held-out tokens: Pearson's r of their cosines in both "
        "spaces, the mean absolute difference of the cosines, and debiased linear CKA. A rotation changes none of "
        "them; "
        "after orthogonal: what cutting the source to the target's width does. shuffled: standard deviation over "
        "shuffled "
        "pairs, whose mean is 0. Brackets: 95 %, jackknife."
    )
    columns = ["spaces", "r", "shuffled", "p", "|difference|", "CKA", "shuffled CKA"]
    return Table("Agreement without a map", columns, rows, caption)


def ordered_table(found: Aligned) -> Table:
    """One row per ordered set and way of keeping it out."""
    rows: list[list[Cell]] = []
    for each in found.ordered:
        it, q = each.agreement, each.q
        rows.append(
            [
                f"{it.name} (cycle)" if it.cycle else it.name,
                each.kept_out,
                f"{it.at_home} of {len(it.tokens)}",
                q["at_home"],
                it.cosine,
                it.others,
                it.structure,
                q["structure"],
                it.steps_predicted,
                it.steps_true,
                q["steps"],
            ]
        )
    caption = (
        f"After {found.alignment.best}. kept out: all words of all sets from one map; each alone, by a map fitted on "
        "all "
        "others; or documents. home: words nearer to their own row than to any other of the set; own, others: cosine "
        "with "
        "the own row and with the others'; r: of the cosines of all pairs, predicted against true; steps: "
        "correlation of "
        "the distance in the order with the cosine, of predicted and of true rows (negative: neighbours are alike). "
        "q: relabelled within the set, corrected over sets and tests."
    )
    columns = ["set", "kept out", "home", "q home", "own", "others", "r", "q r", "steps", "true", "q steps"]
    return Table("Ordered sets", columns, rows, caption)


def alignment_details(found: Aligned) -> list[Table]:
    """Everything that is too long for a terminal."""
    tables = [retrieval_table(found), distribution_table(found), *token_tables(found), curve_table(found)]
    tables += [above_table(found), spectrum_table(found)]
    if found.volumes is not None:
        tables.append(volume_table(found))
    return [*tables, notebook_table(found)] if found.notebook is not None else tables


def retrieval_table(found: Aligned) -> Table:
    """P@1 and P@10 of every map, by cosine and CSLS; raw cosines and distances."""
    names = ["p_at_1", "p_at_10", "csls_p_at_1", "csls_p_at_10", "raw_cosine", "distance"]
    rows: list[list[Cell]] = [
        [name, *(_cell(result.intervals[score]) for score in names)] for name, result in found.alignment.maps.items()
    ]
    caption = (
        f"Of {found.alignment.n_queries:,} held-out tokens among {found.alignment.n_candidates:,} candidates (chance "
        f"{found.alignment.chance(1):.2g} and {found.alignment.chance(10):.2g}). raw cosine: nothing is subtracted, "
        "so a "
        "mean that all rows share counts as agreement (see the row of the mean)."
    )
    columns = ["map", "P@1", "P@10", "CSLS P@1", "CSLS P@10", "raw cosine", "distance"]
    return Table("Retrieval and distances", columns, rows, caption)


def distribution_table(found: Aligned) -> Table:
    """Mean, spread and percentiles of cosines, raw cosines and distances over held-out tokens."""
    names = ["mean", "sd", "min", *(f"p{p}" for p in PERCENTILES), "max"]
    rows: list[list[Cell]] = [
        [name, score.replace("_", " "), *(values[key] for key in names)]
        for name, result in found.alignment.maps.items()
        if result.fitted
        for score, values in result.summaries.items()
    ]
    return Table("Distributions over held-out tokens", ["map", "of", *names], rows)


def token_tables(found: Aligned) -> list[Table]:
    """The best and worst of the held-out tokens: never anchors, never rows that no token has (spec, BUG F-2)."""
    cosine = found.best.scores.cosine
    order = np.argsort(-cosine, kind="stable")
    tables = []
    for title, chosen in (("Best tokens", order[:_LISTED]), ("Worst tokens", order[::-1][:_LISTED])):
        rows: list[list[Cell]] = [
            [visible(found.labels[place], _LONGEST), str(found.source_ids[place]), float(cosine[place])]
            for place in chosen.tolist()
        ]
        caption = f"Held-out tokens alone, after {found.alignment.best}."
        tables.append(Table(title, ["token", "id", "cosine"], rows, caption))
    return tables


def curve_table(found: Aligned) -> Table:
    """Scores by number of anchors."""
    rows: list[list[Cell]] = [
        [point.method, point.anchors, _cell(point.cosine), _cell(point.explained)] for point in found.alignment.curve
    ]
    return Table("Learning curve", ["map", "anchors", "cosine", "R2"], rows, "Each set of anchors is part of the next.")


def above_table(found: Aligned) -> Table:
    """Shares of tokens above thresholds."""
    shares, trend = above(found), by_id(found)
    r, p = trend["spearman"], trend["p"]
    caption = f"After {found.alignment.best}. A token's cosine and its id: Spearman {r:.2f} (p = {p:.2g})."
    rows: list[list[Cell]] = [[threshold, share] for threshold, share in shares.items()]
    return Table("Held-out tokens above a cosine", ["cosine above", "share"], rows, caption)


def spectrum_table(found: Aligned) -> Table:
    """How much of the target's variance is left, and in how many components."""
    sides = [("target itself", found.alignment.spectrum)]
    sides += [(f"left by {name}", each.spectrum) for name, each in found.alignment.maps.items() if each.fitted]
    rows: list[list[Cell]] = []
    for name, spectrum in sides:
        total = float(spectrum.sum())
        dimension = total**2 / float(np.square(spectrum).sum()) if total > 0 else None
        rows.append([name, total, *(float(spectrum[:k].sum()) for k in (1, 5, 20)), dimension])
    columns = ["variance", "share", "first", "first 5", "first 20", "participation ratio"]
    caption = "Of the variance of the held-out tokens about the anchors' mean. All components: spectrum.parquet."
    return Table("Residual spectrum", columns, rows, caption)


def volume_table(found: Aligned) -> Table:
    """Volumes of the same simplices, mapped and true."""
    volumes = found.volumes
    assert volumes is not None
    values = volumes_json(volumes)
    assert values is not None
    rows: list[list[Cell]] = []
    named = (("V", volumes.volumes), ("log V", volumes.log_volumes), ("log V beyond norms", volumes.beyond_norms))
    for name, it in named:
        cell = interval_cell(it.r.value, it.r.low, it.r.high)
        rows.append([name, cell, finite_or_none(it.null_low), finite_or_none(it.null_high), finite_or_none(it.p)])
    caption = (
        f"{volumes.n_joint:,} of {volumes.n_simplices:,} simplices of {volumes.n_pool:,} held-out tokens have a "
        "volume in "
        f"both spaces. CV {values['predicted']['cv']:.3g} mapped, {values['target']['cv']:.3g} true; mean volume "
        "mapped by "
        f"true {values['ratio']:.3g}. null: tokens of one space permuted."
    )
    return Table("Volumes of simplices", ["r of", "r", "null, low", "null, high", "p"], rows, caption)


def notebook_table(found: Aligned) -> Table:
    """The notebook's quantities, and ours where there is one of the same name."""
    assert found.notebook is not None
    numbers, maps = found.notebook.numbers, found.alignment.maps
    rotation = maps.get("orthogonal")
    ours: dict[str, Cell] = {
        "relational_r": rotation.relations.pearson.value if rotation and rotation.relations else None,
        "unaligned_r": found.alignment.raw.pearson.value,
    }
    if rotation is not None:
        ours |= {
            "cosine_mean": rotation.intervals["raw_cosine"].value,
            "l2_mean": rotation.intervals["distance"].value,
            "retained_variance": rotation.map.settings["retained"],
        }
    if "scaled" in maps:
        ours["scale_factor"] = maps["scaled"].map.settings["scale"]
    rows: list[list[Cell]] = [[name.replace("_", " "), value, ours.get(name)] for name, value in numbers.items()]
    caption = (
        "Its mistakes are in its column: the scale is a sum of singular values and is not applied; cosines are not "
        "centred; "
        "shares count the anchors and unused rows; volumes of one space stand beside other simplices' of the other; "
        "what "
        "cosines gain over unaligned ones comes from PCA and centring. ours: rotation, held-out tokens that are in use."
    )
    return Table("As the notebook computes it", ["quantity", "notebook", "ours"], rows, caption)


def _cell(interval: Interval | object) -> Cell:
    value, low, high = (float(getattr(interval, name)) for name in ("value", "low", "high"))
    return interval_cell(value, low, high)


def _range(null: Sequence[float | None]) -> Cell:
    value, low, high = (float("nan") if number is None else number for number in null)
    return interval_cell(value, low, high)
