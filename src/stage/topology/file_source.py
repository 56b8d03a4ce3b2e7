"""Clouds of files."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from src.artifacts import Parent, content_digest
from src.config.topology import TopologyConfig
from src.stage.context import Stage
from src.stage.topology.cloud import Cloud
from src.stage.topology.cloud_files import find_cloud_files, read_clouds, read_point_names


class FileSource:
    """Arrays in files."""

    shares_points = False
    model_name = None

    def __init__(self, config: TopologyConfig) -> None:
        named = [config.clouds] if isinstance(config.clouds, str) else list(config.clouds or [])
        self._paths = find_cloud_files(named)
        self._clouds = read_clouds(self._paths)
        names = config.point_names
        self._names = None if names is None else read_point_names(Path(names).expanduser(), self._clouds)
        self.words = [path.stem for path in self._paths[:2]]
        self.parents: list[Parent] = []
        self._config = config

    def identity(self) -> dict[str, Any]:
        """Contents and names of the files, and of the names of rows; what is drawn of large ones."""
        names = None if self._names is None else hashlib.sha256("\n".join(self._names).encode()).hexdigest()
        return {
            "clouds": {path.name: content_digest([path]) for path in self._paths},
            "point_names": names,
            **self._config.model_dump(include={"n_points", "seed"}),
        }

    def describe(self) -> str:
        """The files."""
        return ", ".join(path.name for path in self._paths)

    def read(self, stage: Stage) -> list[Cloud]:
        """One cloud for each array, as many rows of each as n_points says."""
        found = []
        for name, points in self._clouds.items():
            rows = np.arange(len(points))
            if self._config.n_points is not None and len(points) > self._config.n_points:
                draws = np.random.default_rng(self._config.seed)
                rows = np.sort(draws.choice(len(points), self._config.n_points, replace=False))
                stage.say(f"{name}: {len(rows):,} of {len(points):,} points are drawn (n_points)")
            columns: dict[str, Any] = {"row": pa.array(rows)}
            if self._names is not None:
                columns["text"] = pa.array([self._names[row] for row in rows])
            found.append(Cloud(name, None, None, points[rows], pa.table(columns)))
        return found
