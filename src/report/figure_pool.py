"""Many charts on one page: the numbers lie in it once, and so does each specification that several charts share."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt

from src.report.charts import chart_spec
from src.report.cube import Cube

ChartOf = Callable[..., alt.TopLevelMixin]


@dataclass(frozen=True)
class PlacedFigure:
    """A chart of the pool, as a template shows it. number: its place in the pool's JSON."""

    number: int
    title: str
    caption: str = ""


class FigurePool:
    """The charts of a page. Each is a chart function, whose specification is made once, over a slice of a cube."""

    def __init__(self) -> None:
        self._cubes: list[Cube] = []
        self._specs: list[dict[str, Any]] = []
        self._keys: dict[str, int] = {}
        self._figures: list[dict[str, Any]] = []
        self._config: dict[str, Any] = {}

    def place(
        self,
        chart: ChartOf,
        cube: Cube,
        title: str,
        *,
        fields: Mapping[str, str],
        at: Mapping[str, int] | None = None,
        caption: str = "",
        **options: Any,
    ) -> PlacedFigure:
        """Add a chart over a slice of a cube (see Cube.records).

        chart: called as chart([], "", **options); its specification must not depend on the records and the title.
        """
        number = len(self._figures)
        figure = {"spec": self._spec(chart, options), "cube": self._cube(cube), "fields": dict(fields)}
        self._figures.append(figure | ({"at": dict(at)} if at else {}))
        return PlacedFigure(number, title, caption)

    def json(self) -> dict[str, Any]:
        """All of it, for the page's script."""
        return {
            "config": self._config,
            "specs": self._specs,
            "cubes": [cube.compact() for cube in self._cubes],
            "figures": self._figures,
        }

    def _cube(self, cube: Cube) -> int:
        for place, known in enumerate(self._cubes):
            if known is cube:
                return place
        self._cubes.append(cube)
        return len(self._cubes) - 1

    def _spec(self, chart: ChartOf, options: Mapping[str, Any]) -> int:
        name = chart.func.__name__ if isinstance(chart, functools.partial) else chart.__name__
        key = json.dumps([name, options], sort_keys=True)
        if key not in self._keys:
            spec = chart_spec(chart([], "", **options))
            if spec.pop("data", None) != {"values": []}:
                raise ValueError(f"{name}: its data must be the records alone, at the top of its specification")
            self._config = self._config or spec["config"]
            if spec.pop("config") != self._config:
                raise ValueError(f"{name}: its look differs from that of the other charts of the page")
            spec.pop("title", None)
            self._keys[key] = len(self._specs)
            self._specs.append(spec)
        return self._keys[key]
