"""What analysis=simplices shows: words, tables, one figure, JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.geometry.simplices.joint import JointStatistics
from src.geometry.simplices.notebook import NotebookVolumes
from src.geometry.simplices.nulls import NULLS
from src.geometry.simplices.profile import SimplexProfile
from src.report.finding import Finding
from src.report.geometry.simplices.chart import simplex_chart
from src.report.geometry.simplices.records import (
    joint_values,
    null_records,
    percentile_records,
    profile_values,
    space_key,
)
from src.report.geometry.simplices.words import simplex_words
from src.report.tables import Cell, Table, finite_or_none, interval_cell


@dataclass(frozen=True)
class NotebookFigures:
    """compat=notebook: of each table its volumes, and r of both tables' where there are two."""

    volumes: Mapping[str, NotebookVolumes]
    joint_r: float | None


def simplex_finding(
    profiles: Mapping[str, SimplexProfile],
    joint: Mapping[str, JointStatistics],
    settings: Mapping[str, Any],
    notebook: NotebookFigures | None,
    *,
    tied: bool,
) -> Finding:
    """profiles: by space, the input embeddings first; joint: of those with each other space."""
    first = next(iter(profiles))
    files: dict[str, Any] = {
        "simplices.json": {
            "settings": dict(settings),
            "tied": tied,
            "spaces": {space_key(name): profile_values(profile) for name, profile in profiles.items()},
            "joint": {space_key(name): joint_values(found) for name, found in joint.items()},
        }
    }
    tables = [_spread_table(profiles), _null_table(profiles), *([_joint_table(first, joint)] if joint else [])]
    if notebook is not None:
        tables.append(_notebook_table(profiles, joint, notebook))
        files["simplices_notebook.json"] = {
            "volumes": {space_key(name): vars(found) for name, found in _finite_volumes(notebook).items()},
            "joint_r": None if notebook.joint_r is None else finite_or_none(notebook.joint_r),
        }
    metrics = {
        f"simplices/{space_key(name)}/{key}": value
        for name, profile in profiles.items()
        for key, value in (
            ("cv", profile.cv.value),
            ("excess", profile.matched.excess.value),
            ("predicted_cv", profile.predicted_cv),
            ("p", profile.matched.p),
        )
    }
    metrics |= {f"simplices/joint/{space_key(name)}/r": found.log_volumes.r.value for name, found in joint.items()}
    return Finding(
        text=simplex_words(profiles, joint, tied=tied),
        tables=tables,
        figures=[simplex_chart(profiles, joint)],
        details=[_percentile_table(profiles)],
        records={
            "simplex_nulls": [record for name, profile in profiles.items() for record in null_records(name, profile)],
            "simplex_percentiles": [
                record for name, profile in profiles.items() for record in percentile_records(name, profile)
            ],
        },
        files=files,
        metrics=metrics,
    )


def _finite_volumes(notebook: NotebookFigures) -> dict[str, NotebookVolumes]:
    return {name: found for name, found in notebook.volumes.items() if found.n_valid}


def _spread_table(profiles: Mapping[str, SimplexProfile]) -> Table:
    k = next(iter(profiles.values())).k
    rows = [
        [
            name,
            profile.n_points,
            interval_cell(profile.cv.value, profile.cv.low, profile.cv.high),
            finite_or_none(profile.predicted_cv),
            finite_or_none(profile.matched.cv.value),
            interval_cell(profile.matched.excess.value, profile.matched.excess.low, profile.matched.excess.high),
            finite_or_none(profile.matched.p),
        ]
        for name, profile in profiles.items()
    ]
    return Table(
        f"How much volumes of {k}-simplices vary",
        ["space", "tokens", "CV", "formula", "null CV", "excess", "p"],
        rows,
        "CV: standard deviation by mean. formula: from effective dimension and spread of norms alone. null: a Gaussian "
        "cloud of the same covariance and norms; excess: CV less the null's. Intervals: bootstrap over tokens. "
        "Structure is claimed where p and the excess's interval both say so: p alone is somewhat small where few "
        "dimensions hold most of the variance.",
    )


def _null_table(profiles: Mapping[str, SimplexProfile]) -> Table:
    rows: list[list[Cell]] = []
    for name, profile in profiles.items():
        for null, words in NULLS.items():
            found = profile.nulls[null]
            rows.append(
                [
                    name,
                    words,
                    interval_cell(found.cv.value, found.cv.low, found.cv.high),
                    interval_cell(found.ratio.value, found.ratio.low, found.ratio.high),
                ]
            )
    return Table(
        "Beside Gaussian clouds",
        ["space", "the null shares", "CV of the null", "mean volume / null's"],
        rows,
        "Only the last null of a space knows both covariance and norms: a ratio below 1, or a CV above the others', is "
        "no structure.",
    )


def _joint_table(first: str, joint: Mapping[str, JointStatistics]) -> Table:
    rows: list[list[Cell]] = []
    for name, found in joint.items():
        kinds = (
            ("volume", found.volumes),
            ("log volume", found.log_volumes),
            ("log volume beyond norms", found.beyond_norms),
        )
        for words, correlation in kinds:
            null = f"{correlation.null_low:.3f} to {correlation.null_high:.3f}"
            r = interval_cell(correlation.r.value, correlation.r.low, correlation.r.high)
            rows.append([name, words, found.n_joint, r, null, finite_or_none(correlation.p)])
    return Table(
        f"The same simplices in two spaces ({first} and another)",
        ["other space", "of", "simplices", "r", "tokens permuted", "p"],
        rows,
        "A simplex counts if it has a volume in both spaces.",
    )


def _notebook_table(
    profiles: Mapping[str, SimplexProfile], joint: Mapping[str, JointStatistics], notebook: NotebookFigures
) -> Table:
    rows: list[list[Cell]] = []
    for name, found in notebook.volumes.items():
        ours = profiles[name]
        rows += [
            [name, "CV", finite_or_none(found.cv), finite_or_none(ours.cv.value)],
            [
                name,
                "mean volume / null of one spread",
                finite_or_none(found.ratio_entry_std),
                finite_or_none(ours.nulls["entry_std"].ratio.value),
            ],
            [
                name,
                "mean volume / null of each dimension's spread",
                finite_or_none(found.ratio_dimension_std),
                finite_or_none(ours.nulls["dimension_std"].ratio.value),
            ],
        ]
    if notebook.joint_r is not None:
        for name, found in joint.items():
            if name in notebook.volumes:
                ours_r = finite_or_none(found.volumes.r.value)
                rows.append([name, "r with input embeddings", finite_or_none(notebook.joint_r), ours_r])
    return Table(
        "As the notebook computes it",
        ["space", "quantity", "notebook", "ours"],
        rows,
        "The notebook: 1,000 simplices (500 for r) of all rows, padding and special ones too, seed 42; r of lists that "
        "lose rejected simplices apart, and so pair different ones. Published “universal band” of CV: 0.20 to 0.23.",
    )


def _percentile_table(profiles: Mapping[str, SimplexProfile]) -> Table:
    first = next(iter(profiles.values()))
    percentiles = list(first.volumes.log_percentiles)
    rows: list[list[Cell]] = []
    for name, profile in profiles.items():
        ranks = [finite_or_none(profile.volumes.log_percentiles[percent]) for percent in percentiles]
        rows.append([name, profile.volumes.n_valid, finite_or_none(profile.volumes.log_mean), *ranks])
    columns = ["space", "with a volume", "log of the mean", *(f"{percent} %" for percent in percentiles)]
    return Table(f"Percentiles of log volumes of {first.k}-simplices", columns, rows)
