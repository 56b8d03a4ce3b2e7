"""Which clouds of two results belong together, and which of their points are of the same prompt or token."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from src.errors import StrataError
from src.models import layers_in_config
from src.report.topology.reading import Topology
from src.stage.topology_comparison.results import Result, measured_model

# a share of both clouds' points that must have partners, else the clouds are compared unpaired
_MOST = 0.9
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class PointPairs:
    """Rows of two clouds (as they came) that are compared. paired: row i of one goes with row i of the other.

    units: of the rows: the sequence that a point is from, the same number in both where they are paired.
    """

    first: Int[np.ndarray, " point"]
    second: Int[np.ndarray, " other_point"]
    units_first: Int[np.ndarray, " point"]
    units_second: Int[np.ndarray, " other_point"]
    paired: bool


def match_clouds(first: Result, second: Result, how: Literal["index", "depth"]) -> list[tuple[str, str]]:
    """Names of the clouds that are compared: layers by index or depth, arrays of files by name, or in their order.

    Raises:
        StrataError: no cloud of one has a partner in the other.
    """
    ours, theirs = first.topology.profiles, second.topology.profiles
    if all(profile.layer is not None for profile in (*ours, *theirs)):
        of = [{profile.layer: profile.name for profile in side if profile.layer is not None} for side in (ours, theirs)]
        if how == "index":
            pairs = [(of[0][layer], of[1][layer]) for layer in sorted(of[0]) if layer in of[1]]
        else:
            pairs = _by_depth(of[0], of[1], _n_layers(first), _n_layers(second))
    else:
        names = {profile.name for profile in theirs}
        pairs = [(profile.name, profile.name) for profile in ours if profile.name in names]
        if not pairs and len(ours) == len(theirs):
            pairs = [(a.name, b.name) for a, b in zip(ours, theirs, strict=True)]
    if not pairs:
        have = [", ".join(profile.name for profile in side) for side in (ours, theirs)]
        raise StrataError(
            f"no cloud of {first.label} ({have[0]}) goes with one of {second.label} ({have[1]}): measure the same "
            "layers of both, or use match_layers=depth"
        )
    return pairs


def _by_depth(ours: dict[int, str], theirs: dict[int, str], n_ours: int, n_theirs: int) -> list[tuple[str, str]]:
    """Each layer of the result that has fewer with the nearest of the other by the share of blocks up to it."""
    if len(ours) > len(theirs):
        return [(first, second) for second, first in _by_depth(theirs, ours, n_theirs, n_ours)]
    depth = {layer: (layer + 1) / n_theirs for layer in sorted(theirs)}
    return [
        (name, theirs[min(depth, key=lambda other: abs(depth[other] - (layer + 1) / n_ours))])
        for layer, name in sorted(ours.items())
    ]


def _n_layers(result: Result) -> int:
    """Of the model, or where its config does not tell, those measured."""
    known = layers_in_config(measured_model(result)[0])
    return known or 1 + max(profile.layer or 0 for profile in result.topology.profiles)


def match_points(
    first: Topology, name: str, second: Topology, other: str, how: Literal["auto", "rows", "none"]
) -> PointPairs:
    """The analysed points of two clouds, those of the same place in the same text side by side.

    Raises:
        StrataError: row is to go with row, and the clouds have different numbers of rows.
    """
    tables = first.table(name), second.table(other)
    rows = first.profile(name).rows, second.profile(other).rows
    units = _units(tables[0])[rows[0]], _units(tables[1])[rows[1]]
    if how == "none":
        return PointPairs(*rows, *units, paired=False)
    if how == "rows":
        if len(tables[0]) != len(tables[1]):
            raise StrataError(
                f"pairing=rows: {name} has {len(tables[0])} rows and {other} {len(tables[1])}: rows without a partner "
                "can't be compared; use pairing=auto or none"
            )
        common = np.intersect1d(*rows)
        own = _units(tables[0])[common]
        return PointPairs(common, common, own, own, paired=True)
    keys = [_places(table) for table in tables]
    if keys[0] is None or keys[1] is None:
        return PointPairs(*rows, *units, paired=False)
    place = {keys[1][row]: row for row in rows[1].tolist()}
    found = [(row, place[keys[0][row]]) for row in rows[0].tolist() if keys[0][row] in place]
    enough = len(found) >= max(_FEWEST, _MOST * max(len(rows[0]), len(rows[1])))
    if not enough or len({partner for _, partner in found}) < len(found):
        return PointPairs(*rows, *units, paired=False)
    ours, theirs = np.array(found).T
    own = _units(tables[0])[ours]
    return PointPairs(ours, theirs, own, own, paired=True)


def _places(table: pa.Table) -> list[tuple[object, ...]] | None:
    """What says of each row where in which text it stands; None where nothing does."""
    for columns in (("sequence", "position", "context"), ("row", "text")):
        if set(columns) <= set(table.column_names):
            return list(zip(*(table.column(column).to_pylist() for column in columns), strict=True))
    return None


def _units(table: pa.Table) -> Int[np.ndarray, " row"]:
    """The sequence of each row; each row for itself where there is none, or rows are means over several sequences."""
    averaged = "n_tokens" in table.column_names and max(table.column("n_tokens").to_pylist(), default=1) > 1
    if averaged or "sequence" not in table.column_names:
        return np.arange(len(table))
    return np.unique(table.column("sequence").to_numpy(), return_inverse=True)[1]
