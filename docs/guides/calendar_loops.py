"""What the guide "Loops with meaning" adds to measure_topology.py: do labels go round a loop in their order?

  python docs/guides/calendar_loops.py artifacts/topology/weekdays figures

takes an artifact of measure_topology.py whose points are one mean per label, labels in their cyclic order. It tests the
longest loop of every cloud, follows loops over the layers, and writes figures into the folder `figures`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run as a script, the repository's root is not on the path

from src.report.charts import save_chart  # noqa: E402
from src.report.figures.loops import coordinate_by_label, loop_chart, tracked_loops  # noqa: E402
from src.topology.homology.distances import Distances  # noqa: E402
from src.topology.homology.persistence import persistence  # noqa: E402
from src.topology.inference.significance import holm  # noqa: E402
from src.topology.loops.loops import Loop, cycle_test, loops_of  # noqa: E402
from src.topology.loops.tracking import track_loops  # noqa: E402

LEVEL = 0.01
# loops of a layer that are followed over the layers
FOLLOWED = 3


def main() -> None:
    """Test, track and draw the loops of the artifact of the first argument."""
    folder, figures = Path(sys.argv[1]), Path(sys.argv[2])
    clouds = dict(sorted(load_file(folder / "clouds.safetensors").items()))
    words = pq.read_table(folder / "points.parquet")["label"].to_pylist()
    bars = pq.read_table(folder / "bars.parquet").to_pylist()
    loops = {name: loops_in(points, name, bars) for name, points in clouds.items()}
    tests = [
        cycle_test(of_cloud[0], np.arange(len(words)), len(words)) if of_cloud else None for of_cloud in loops.values()
    ]
    corrected = holm(np.array([1.0 if test is None else test.p for test in tests]))
    print("cloud           ratio  p(loop)  neighbours in order  p(order)  p(both)  p(both, all layers)")
    for (name, of_cloud), test, p in zip(loops.items(), tests, corrected, strict=True):
        if test is None:
            print(f"{name:15} no loop around all {len(words)} words")
            continue
        row = f"{name:15} {of_cloud[0].ratio:5.2f}  {test.p_loop:7.3f}  {test.order.n_adjacent:10d} of {len(words):2d}"
        print(f"{row}       {test.order.p:8.1e}  {test.p:7.1e}  {p:7.1e}")
    for place, (name, points) in enumerate(clouds.items()):
        if loops[name]:
            draw(loops[name][0], points, words, name, figures / f"layer_{place}")
    tracks = track_loops(range(len(clouds)), list(loops.values()))
    names = [" ".join(words[point][:3] for point in track.loops[0].points) for track in tracks]
    numbered = [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names)]
    save_chart(tracked_loops(tracks, numbered, level=LEVEL), figures / "tracks")


def loops_in(points: np.ndarray, name: str, bars: list[dict[str, Any]]) -> list[Loop]:
    """The longest loops of a cloud, significant or not."""
    distances = Distances.from_points(points)
    p = np.array([bar["p_null"] for bar in bars if bar["cloud"] == name and bar["dimension"] == 1], dtype=float)
    return loops_of(distances, persistence(distances), p, level=1, at_most=FOLLOWED)


def draw(loop: Loop, points: np.ndarray, words: list[str], name: str, stem: Path) -> None:
    """The loop in the plane of the first two principal components, and its coordinate by word."""
    left, lengths, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    save_chart(loop_chart(loop, left[:, :2] * lengths[:2], words, name), stem.with_name(f"{stem.name}_loop"))
    chart = coordinate_by_label(loop.coordinate.turns, words, words, f"Circular coordinate, {name}")
    save_chart(chart, stem.with_name(f"{stem.name}_coordinate"))


if __name__ == "__main__":
    main()
