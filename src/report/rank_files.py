"""The files of the matched-rank analysis: one record per pair, and parquet tables of every rank."""

from collections.abc import Iterator, Mapping
from itertools import starmap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from src.report.matched_rank import CEILING, CURVES, OPERATOR, Ranks
from src.report.records import estimate_fields
from src.transport.bootstrap import Band
from src.transport.matched_rank import PairRanks
from src.transport.pairs import LayerPair
from src.transport.permutation import SizeTest
from src.transport.rank_factors import METRICS


def rank_summaries(ranks: Ranks, artifacts: Mapping[LayerPair, str]) -> list[dict[str, Any]]:
    """One flat record per pair: everything but the curves. artifacts: the name of each operator's artifact."""
    records = []
    for pair, each in ranks.items():
        canonical = each.matched.canonical
        record = {
            "L": pair.L,
            "k": pair.k,
            "offset": pair.offset,
            "operators": artifacts[pair],
            "reduced_rank_alpha": each.matched.alpha,
            "n_train_rows": canonical.n_rows,
            "n_test_rows": each.matched.n_held_out,
            "d": each.d,
            "source_rank": canonical.source_rank,
            "target_rank": canonical.target_rank,
        }
        for metric in METRICS:
            record |= estimate_fields(f"ceiling_{metric}", each.bands.ceiling[metric].at(-1))
            record |= estimate_fields(f"r2_{metric}", each.bands.r2[OPERATOR][metric].at(-1))
            record |= estimate_fields(f"efficiency_{metric}", each.bands.efficiency[OPERATOR][metric].at(-1))
        record["ceiling_in_sample"] = float(canonical.ceiling[-1])
        record["ceiling_cross_fitted"] = float(each.observed.ceiling[-1])
        record["independent_edge"] = each.edge
        for name in ("explained_dimensions", "participation_ratio"):
            record |= estimate_fields(name, getattr(each, name))
            if each.permutation is not None:
                record |= _test_fields(name, getattr(each.permutation, name))
        records.append(record)
    return records


def _test_fields(name: str, test: SizeTest) -> dict[str, float]:
    quantiles = {f"{name}_null_q{1000 * q:03.0f}": value for q, value in test.quantiles.items()}
    return {f"{name}_p": test.p_value, f"{name}_permutations": len(test.null), **quantiles}


def write_ranks(folder: Path, ranks: Ranks) -> None:
    """Write `matched_rank.parquet` (every rank of every curve) and `spectrum.parquet`, one row group per pair."""
    for name, columns in (("matched_rank", _curve_columns), ("spectrum", _spectrum_columns)):
        _write_tables(folder / f"{name}.parquet", starmap(columns, ranks.items()))


def _write_tables(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in (first, *tables):
            writer.write_table(table)


def _curve_columns(pair: LayerPair, each: PairRanks) -> pa.Table:
    """One row per metric, curve and rank; ceilings have no efficiency."""
    nothing = Band(*(torch.full((each.d,), float("nan")) for _ in range(3)))
    tables = []
    for metric in METRICS:
        curves = {family: (each.bands.r2[family][metric], each.bands.efficiency[family][metric]) for family in CURVES}
        for curve, (r2, efficiency) in {CEILING: (each.bands.ceiling[metric], nothing), **curves}.items():
            place = {"metric": metric, "curve": curve}
            columns = {"rank": range(1, each.d + 1)} | _columns("r2", r2) | _columns("efficiency", efficiency)
            tables.append(_table(pair, each.d, place, columns))
    return pa.concat_tables(tables)


def _spectrum_columns(pair: LayerPair, each: PairRanks) -> pa.Table:
    """One row per place in the order of the in-sample correlations."""
    columns: dict[str, Any] = {
        "place": range(1, each.d + 1),
        "in_sample": each.matched.canonical.correlations.cpu().numpy(),
        "cross_fitted": each.observed.correlations.cpu().numpy(),
        "test": each.matched.correlations.cpu().numpy(),
    }
    if each.permutation is not None:
        for probability, values in each.permutation.null_correlations.items():
            columns[f"null_q{1000 * probability:03.0f}"] = values.cpu().numpy()
    return _table(pair, each.d, {}, columns)


def _table(pair: LayerPair, n: int, constant: Mapping[str, str], columns: Mapping[str, Any]) -> pa.Table:
    numbers = {"L": pair.L, "k": pair.k, "offset": pair.offset}
    fields = {name: pa.repeat(pa.scalar(number, pa.int32()), n) for name, number in numbers.items()}
    fields |= {name: pa.repeat(pa.scalar(word), n) for name, word in constant.items()}
    return pa.table(fields | {name: pa.array(values) for name, values in columns.items()})


def _columns(name: str, band: Band) -> dict[str, Any]:
    ends = {name: band.value, f"{name}_low": band.low, f"{name}_high": band.high}
    return {field: values.double().cpu().numpy() for field, values in ends.items()}
