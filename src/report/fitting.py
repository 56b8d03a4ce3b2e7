"""What train_transport_operators.py shows of its fits."""

from collections.abc import Sequence
from statistics import median

from src.report.artifact_report import NamedChart
from src.report.by_offset import figures_by_offset, pair_cells, pair_columns
from src.report.figures.alpha_path import alpha_path
from src.report.figures.heatmap import pair_heatmap
from src.report.figures.offset_curves import offset_curves
from src.report.figures.rank import shown_ranks
from src.report.figures.rank_path import rank_path
from src.report.findings import span
from src.report.tables import Cell, Table
from src.transport.fitting import PairFit
from src.transport.saved import score_rows

_SPARSE = ("lasso", "elasticnet")


def fit_tables(fits: Sequence[PairFit]) -> list[Table]:
    """The table of pairs, for sparse methods that of their coefficients, for Jacobians that of their sample."""
    sparse = [fit for fit in fits if fit.operator.method in _SPARSE]
    averaged = [fit for fit in fits if fit.operator.method == "jacobian"]
    details = [*([sparsity_table(sparse)] if sparse else []), *([jacobian_table(averaged)] if averaged else [])]
    return [pair_table(fits), *details]


def pair_table(fits: Sequence[PairFit]) -> Table:
    """One row per pair: alpha, cross-validated and held-out R2, and the baselines that need no fit."""
    rows, pairs = [], [fit.pair for fit in fits]
    is_reduced = fits[0].operator.method == "reduced_rank"
    for fit in fits:
        own_alphas = fit.operator.metadata.get("output_alphas")
        rows.append(
            [
                *pair_cells(fit.pair, pairs),
                fit.operator.alpha if own_alphas is None else median(own_alphas),
                fit.operator.metadata["relative_alpha"],
                *([fit.operator.metadata["rank"]] if is_reduced else []),
                _optimum(fit),
                None if fit.path is None else fit.path.best_score,
                fit.val.r2_uniform,
                fit.val.r2_variance_weighted,
                fit.shift.r2_variance_weighted,
                fit.identity.r2_variance_weighted,
            ]
        )
    cv = _cv_score(fits)
    alpha = "median alpha" if any("output_alphas" in fit.operator.metadata for fit in fits) else "alpha"
    scores = [cv, "val R²", "val R² vw", "shift vw", "identity vw"]
    columns = [*pair_columns(pairs), alpha, "relative", *(["rank"] if is_reduced else []), "optimum", *scores]
    caption = (
        f"R² is the mean over dimensions, vw weighs them by variance. val: {_val_documents(fits)}. "
        "shift: y = x + mean(y - x); identity: y = x."
    )
    if any(fit.path is not None for fit in fits):
        tuned = {(True, True): "alpha and rank were", (False, True): "rank was"}
        what = tuned.get((_tunes_alpha(fits), _ranks_tried(fits) > 1), "alpha was")
        caption += f" {cv}: mean over the folds, what {what} chosen by."
    if is_reduced:
        caption += f" rank: of {len(fits[0].operator.bias):,} at most"
        caption += ", chosen by cross-validation." if _ranks_tried(fits) > 1 else "."
    if any(pair.offset for pair in pairs):
        caption += " offset: the target is so many tokens after the source; all offsets are fitted on the same tokens."
    return Table("Transport operators", columns, rows, caption + _unit(fits))


def _tunes_alpha(fits: Sequence[PairFit]) -> bool:
    """Whether there was more than one alpha to choose from."""
    return any(fit.path is not None and len(fit.path.alphas.unique()) > 1 for fit in fits)


def _ranks_tried(fits: Sequence[PairFit]) -> int:
    """The number of ranks that there was to choose from; 0 for methods that have none."""
    paths = [fit.path for fit in fits if fit.path is not None and fit.path.ranks is not None]
    return max((len(path.ranks.unique()) for path in paths if path.ranks is not None), default=0)


def _val_documents(fits: Sequence[PairFit]) -> str:
    if fits[0].operator.method == "jacobian":
        return "documents that no regression saw; the tokens whose Jacobians were averaged are among theirs"
    return "documents that no fit and no choice saw"


def _optimum(fit: PairFit) -> str:
    if fit.path is None or (fit.path.ranks is not None and not _tunes_alpha([fit])):
        return "-"
    if fit.path.per_output is not None:
        return f"{1 - fit.path.edge_share:.0%} inside"
    return "edge of grid" if fit.path.at_edge else "inside"


def _unit(fits: Sequence[PairFit]) -> str:
    """What alpha means, where there is one."""
    unit = _relative_unit(fits)
    return f" alpha is scikit-learn's; relative: in units of {unit}." if unit else ""


def _relative_unit(fits: Sequence[PairFit]) -> str:
    """What relative alphas are counted in; empty where there is no alpha."""
    method = fits[0].operator.method
    if method in ("ridge", "reduced_rank"):
        return "tr(X'X)/d_model"
    return "the smallest at which all coefficients are 0" if method in _SPARSE else ""


def sparsity_table(fits: Sequence[PairFit]) -> Table:
    """One row per pair: how many coefficients are 0, which inputs are used, and what did not converge."""
    rows: list[list[Cell]] = []
    pairs = [fit.pair for fit in fits]
    for fit in fits:
        metadata = fit.operator.metadata
        counts = sorted(metadata["nonzero_per_output"])
        rows.append(
            [
                *pair_cells(fit.pair, pairs),
                metadata["l1_ratio"],
                metadata["zero_share"],
                metadata["inputs_used"],
                counts[0],
                float(median(counts)),
                counts[-1],
                metadata["unconverged_outputs"],
            ]
        )
    columns = [*pair_columns(pairs), "l1 ratio", "zeros", "inputs used", "min", "median", "max", "unconverged"]
    caption = (
        "zeros: share of coefficients that are exactly 0 (of the fitted target: of y - x for target=delta). "
        f"inputs used: dimensions of the source that any output uses, of {len(fits[0].operator.weight):,}. "
        "min, median, max: coefficients other than 0 per output. unconverged: outputs that max_iter stopped before tol."
    )
    return Table("Sparsity", columns, rows, caption)


def jacobian_table(fits: Sequence[PairFit]) -> Table:
    """One row per pair: how many tokens were averaged, and how far they decide the mean."""
    rows: list[list[Cell]] = []
    for fit in fits:
        told = fit.operator.metadata
        sample = [told["n_tokens"], told["n_documents"]]
        rows.append([fit.pair.L, fit.pair.k, *sample, told["relative_standard_error"], told["half_split_cosine"]])
    columns = ["L", "k", "tokens", "documents", "relative SE", "halves"]
    caption = (
        "relative SE: standard error of the mean Jacobian, between documents, as a share of its Frobenius norm; four "
        "times the tokens (jacobian.tokens) halve it. halves: cosine of the mean Jacobians of two halves of the "
        "documents, less the identity at hooks of the residual stream."
    )
    return Table("Mean Jacobians", columns, rows, caption)


def _cv_score(fits: Sequence[PairFit]) -> str:
    """The name of the score that alpha was chosen by."""
    scorings = {fit.path.scoring for fit in fits if fit.path is not None}
    return "CV R² vw" if scorings == {"variance_weighted"} else "CV R²"


def fit_text(fits: Sequence[PairFit]) -> str:
    """How well the operators do on validation documents, and what to look out for."""
    found = span({str(fit.pair): fit.val.r2_uniform for fit in fits})
    identity = span({str(fit.pair): fit.identity.r2_uniform for fit in fits})
    lines = [f"On validation documents R² is {found}, of the identity {identity}."]
    edges = [str(fit.pair) for fit in fits if fit.path is not None and fit.path.at_edge]
    if edges:
        lines.append(
            f"The best alpha lies at an edge of the grid for {', '.join(edges)}: widen alphas to be sure of it."
        )
    elif _tunes_alpha(fits):
        lines.append("Each alpha was chosen inside its grid.")
    elif not any(fit.path is not None for fit in fits):
        lines.append("Nothing was tuned.")
    if (warning := unconverged(fits)) is not None:
        lines.append(warning[0].upper() + warning[1:] + ".")
    return " ".join(lines)


def unconverged(fits: Sequence[PairFit]) -> str | None:
    """A warning of fits, and of candidates of the cross-validation, that ran out of iterations; None if none did."""
    final = [
        f"{fit.pair} ({fit.operator.metadata['unconverged_outputs']:,} outputs)"
        for fit in fits
        if fit.operator.metadata.get("unconverged_outputs")
    ]
    paths = [fit.path.unconverged for fit in fits if fit.path is not None and fit.path.unconverged is not None]
    tried = sum(int((counts > 0).sum()) for counts in paths)
    if not final and not tried:
        return None
    parts = [f"the fits of {', '.join(final)}"] if final else []
    if tried:
        parts.append(f"{tried:,} of {sum(counts.numel() for counts in paths):,} fits of the cross-validation")
    return f"max_iter stopped {' and '.join(parts)} before they reached tol: raise max_iter, or leave out small alphas"


def fit_figures(fits: Sequence[PairFit], relative: bool = True) -> list[NamedChart]:
    """The regularisation paths and a heat map of held-out R2, for each position offset; and R2 against the offset.

    relative: the unit in which alphas are drawn, that of the grid.
    """
    by_pair = {fit.pair: fit for fit in fits}
    figures = figures_by_offset(list(by_pair), lambda pairs: _figures([by_pair[pair] for pair in pairs], relative))
    if len({pair.offset for pair in by_pair}) > 1:
        records = [
            {"layer": fit.pair.L, "leap": fit.pair.k, "offset": fit.pair.offset, "r2": fit.val.r2_uniform}
            for fit in fits
        ]
        caption = "Mean over dimensions, val documents; every offset on the same tokens."
        figures.append(NamedChart("offsets", "R² against the position offset", offset_curves(records), caption))
    return figures


def _figures(fits: Sequence[PairFit], relative: bool) -> list[NamedChart]:
    records = [record for fit in fits if fit.path is not None for record in _path_records(fit, relative)]
    values = [{"layer": fit.pair.L, "leap": fit.pair.k, "r2": fit.val.r2_uniform} for fit in fits]
    figures = [
        NamedChart(
            "val_r2",
            "Held-out R² (val)",
            pair_heatmap(values, "r2", "R² on the val documents", label="R²"),
            f"Mean over dimensions, on {_val_documents(fits)}. The test documents are left to eval.py.",
        )
    ]
    if _ranks_tried(fits) > 1:
        ranks = [record for fit in fits for record in _rank_records(fit)]
        caption = "At the chosen alpha; the rank with the best mean over the folds is marked."
        chart = rank_path(ranks, label=_cv_score(fits))
        figures.append(NamedChart("rank_path", "Choice of rank", chart, caption))
    if records and (_tunes_alpha(fits) or not _ranks_tried(fits)):
        ratio = " At the chosen l1 ratio." if fits[0].operator.method == "elasticnet" else ""
        ratio = " At the chosen rank." if _ranks_tried(fits) else ratio
        caption = f"A flat curve: the choice hardly matters. Bands span the folds, each against itself.{ratio}"
        unit = _relative_unit(fits) if relative else None
        chart = alpha_path(records, label=_cv_score(fits), unit=unit)
        figures.append(NamedChart("alpha_path", "Choice of alpha", chart, caption))
    return figures


def _path_records(fit: PairFit, relative: bool) -> list[dict]:
    """One record per alpha, of the chosen l1_ratio or rank: the mean over the folds, and each fold."""
    assert fit.path is not None
    rows = score_rows(fit)
    others = {(row["l1_ratio"], row["rank"]) for row in rows if row["chosen"]}
    name = f"r2_{fit.path.scoring}"
    by_alpha: dict[float, list[dict]] = {}
    for row in rows:
        if (row["l1_ratio"], row["rank"]) in others:
            by_alpha.setdefault(row["relative_alpha" if relative else "alpha"], []).append(row)
    return [
        {
            "layer": fit.pair.L,
            "leap": fit.pair.k,
            "alpha": alpha,
            "score": sum(row[name] for row in of_alpha) / len(of_alpha),
            "folds": [row[name] for row in of_alpha],
            "chosen": of_alpha[0]["chosen"],
        }
        for alpha, of_alpha in by_alpha.items()
    ]


def _rank_records(fit: PairFit) -> list[dict]:
    """One record per rank that is worth drawing, at the chosen alpha: the mean over the folds."""
    path = fit.path
    if path is None or path.ranks is None:
        return []
    of_alpha = path.alphas == path.alphas[path.best]
    ranks, scores = path.ranks[of_alpha.cpu()].tolist(), path.mean_scores[of_alpha].tolist()
    chosen = int(path.ranks[path.best])
    shown = {*shown_ranks(max(ranks)), chosen}
    return [
        {"layer": fit.pair.L, "leap": fit.pair.k, "rank": rank, "score": score, "chosen": rank == chosen}
        for rank, score in zip(ranks, scores, strict=True)
        if rank in shown
    ]
