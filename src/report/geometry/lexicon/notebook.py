"""The published notebook's quantities of words, as tables of their own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from src.report.finding import Finding
from src.report.tables import Cell, Table, finite_or_none

_TITLE = "As the notebook computes it"
_SHOWN = ("static", "contextual")


def notebook_finding(found: Mapping[str, Any]) -> Finding:
    """Its correlations, bands, chains, classes and seeds."""
    pos = found["pos"]
    modifiers = pos["a"] + pos["s"] + pos["r"]
    alone = (
        f"Whether both words are modifiers alone correlates {_number(found['modifier_pairs_pearson'])} with its path "
        f"similarity, and its nouns alone give {_number(found['static_pearson_nouns'])} and "
        f"{_number(found['contextual_pearson_nouns'])}. "
    )
    text = (
        f"As the notebook computes it, {found['n_tokens']:,} tokens of {found['n_synsets']:,} synsets "
        f"({pos['n']:,} nouns, {pos['v']:,} verbs, {modifiers:,} modifiers) have a Pearson correlation of "
        f"{_number(found['static_pearson'])} (embedding rows) and {_number(found['contextual_pearson'])} "
        f"(definitions). {alone if modifiers else ''}Its senses, its artificial root and its bands are mistaken "
        "(docs/methods.md); these numbers are for comparison with published ones."
    )
    summary = [
        [
            name,
            *(finite_or_none(found[f"{name}_{key}"]) for key in ("pearson", "spearman", "pearson_nouns", "gradient")),
        ]
        for name in _SHOWN
    ]
    tables = [
        Table(
            _TITLE,
            ["representation", "Pearson", "Spearman", "Pearson, nouns", "high less low"],
            [*summary, ["lift", *_lift(summary)]],
            f"{found['n_pairs']:,} pairs, drawn with replacement, all parts of speech.",
        ),
    ]
    details = [
        _records(f"{_TITLE}: bands of similarity", found["bands"], ("variant", "band", "n_pairs", *_SHOWN)),
        _chains(found["chains"]),
        _records(f"{_TITLE}: classes", found["classes"], ("class", "n", *_SHOWN)),
        _records(
            f"{_TITLE}: {found['n_seeds']} seeds",
            found["seeds"],
            ("quantity", "mean", "sd", "least", "largest", "sd_percent"),
            "How much one part of the words differs from another, for one model: no error of the whole, and no "
            "variation of models.",
        ),
    ]
    return Finding(
        text,
        tables=tables,
        details=[table for table in details if table.rows],
        files={"lexicon_notebook.json": _plain(dict(found))},
    )


def seeds_finding(records: Sequence[Mapping[str, Any]], n_seeds: int) -> Finding:
    """What parts of our words give."""
    table = _records(
        f"{n_seeds} parts of the words",
        records,
        ("quantity", "mean", "sd", "least", "largest"),
        "sd: of parts that overlap, of one set of words. The jackknife's errors are those of the whole set.",
    )
    return Finding("", details=[table], records={"seeds": [dict(record) for record in records]})


def _lift(rows: Sequence[Sequence[Cell]]) -> list[Cell]:
    static, contextual = rows
    return [
        b - a if isinstance(a, float) and isinstance(b, float) else None
        for a, b in zip(static[1:], contextual[1:], strict=True)
    ]


def _records(title: str, records: Sequence[Mapping[str, Any]], columns: Sequence[str], caption: str = "") -> Table:
    rows = [[_cell(record.get(column)) for column in columns] for record in records]
    return Table(title, [column.replace("_", " ") for column in columns], rows, caption)


def _cell(value: Any) -> Cell:
    return finite_or_none(value) if isinstance(value, float) else value


def _chains(chains: Mapping[str, Mapping[int, tuple[int, float]]]) -> Table:
    indices = sorted({index for by_index in chains.values() for index in by_index})
    rows = [[i, chains["static"][i][0], *(finite_or_none(chains[name][i][1]) for name in _SHOWN)] for i in indices]
    caption = "The index in a chain of matched senses is no number of steps."
    return Table(f"{_TITLE}: chains", ["index", "chains", *_SHOWN], rows, caption)


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "nothing"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
