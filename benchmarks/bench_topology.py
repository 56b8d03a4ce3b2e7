"""CPU time and peak memory of H0 and H1 of clouds of activations: Strata, ripser.py and GUDHI, and whether they agree.

    python -m benchmarks.bench_topology            # 600 to 4000 points (about three minutes)
    python -m benchmarks.bench_topology --quick    # 600 and 1200 points (half a minute)

Clouds are actopo's examples (the residual stream of a small language model over 600 prompts, and of its chat model; 896
dimensions), both together, and jittered copies: 1319 points in 896 dimensions, 2000 and 4000 in the first 50 principal
components. All begin with the points: Strata makes its distances, ripser.py its own (scikit-learn's), GUDHI gets
Strata's, which are faster to make than its own (their time is counted). Each measurement is a process of its own, on
one thread: the least CPU time of several runs, after a first run on a few points that loads and compiles what is
needed; and peak resident memory of the process as the kernel counts it, imports and the cloud included. Above 1x Strata
is faster or smaller. The difference is the bottleneck distance to Strata's H1 diagram, as a part of the largest
distance: ripser.py rounds other distances to float32, GUDHI does not round.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from src.report.tables import Cell, Table
from src.report.terminal import print_table
from src.topology.homology.distances import Distances

CLOUDS = {"c600": 600, "i600": 600, "u1200": 1200, "s1319": 1319, "p2000": 2000, "p4000": 4000}
QUICK = ("c600", "u1200")


def cloud(name: str) -> np.ndarray:
    """One of `CLOUDS`."""
    from actopo.data import load_example_cloud

    base, instruct = (load_example_cloud(each).astype(np.float64) for each in ("base", "instruct"))
    if name == "u1200":
        return np.concatenate([base, instruct])
    if name in ("c600", "i600"):
        return base if name == "c600" else instruct
    if name != "s1319":
        centred = base - base.mean(axis=0)
        base = centred @ np.linalg.svd(centred, full_matrices=False)[2][:50].T
    return jittered(base, CLOUDS[name])


def jittered(points: np.ndarray, n_points: int) -> np.ndarray:
    """The points, and noisy copies of them, off by half of the median distance of nearest neighbours."""
    generator = np.random.default_rng(0)
    scale = 0.5 * np.median(Distances.from_points(points).nearest(1)[0]) / np.sqrt(points.shape[1])
    rows = generator.integers(len(points), size=n_points - len(points))
    return np.concatenate([points, points[rows] + scale * generator.standard_normal((len(rows), points.shape[1]))])


def strata(points: np.ndarray) -> np.ndarray:
    from src.topology.homology.persistence import persistence

    return persistence(Distances.from_points(points)).bars[1].diagram


def ripser_py(points: np.ndarray) -> np.ndarray:
    from ripser import ripser

    return ripser(points)["dgms"][1]


def gudhi(points: np.ndarray) -> np.ndarray:
    from src.topology.homology.backends import gudhi_diagrams

    return gudhi_diagrams(Distances.from_points(points).matrix, 1)[1]


ENGINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"Strata": strata, "ripser.py": ripser_py, "GUDHI": gudhi}


def measure(engine: str, points_file: Path, diagram_file: Path, repeats: int) -> dict[str, float]:
    """CPU seconds and peak MB of this process; the H1 diagram goes to a file."""
    points, run, seconds = np.load(points_file), ENGINES[engine], []
    run(points[:20])
    for _ in range(repeats):
        start = time.process_time()
        diagram = run(points)
        seconds.append(time.process_time() - start)
    np.save(diagram_file, diagram)
    # kilobytes on Linux, bytes on a Mac
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": min(seconds), "peak": peak / 1e6}


def in_own_process(engine: str, points_file: Path, diagram_file: Path, repeats: int) -> dict[str, float]:
    what = [engine, str(points_file), str(diagram_file), str(repeats)]
    command = [sys.executable, "-m", "benchmarks.bench_topology", "--measure", *what]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def first_calls() -> tuple[float, float]:
    """CPU seconds of a new process and the smallest problem, first with numba's cache empty, then filled."""
    code = "import time, numpy as np; from benchmarks.bench_topology import strata; strata(np.eye(3)); "
    code += "print(time.process_time())"
    with tempfile.TemporaryDirectory(prefix="bench_topology_") as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        runs = [subprocess.check_output([sys.executable, "-c", code], env=environment) for _ in range(2)]
    return float(runs[0]), float(runs[1])


def compare_engines(names: Sequence[str], repeats: int, console: Console) -> Table:
    from gudhi import bottleneck_distance

    rows: list[list[Cell]] = []
    with tempfile.TemporaryDirectory(prefix="bench_topology_") as folder:
        for name in names:
            points = cloud(name)
            points_file = Path(folder) / f"{name}.npy"
            np.save(points_file, points)
            diameter, reference, mine = Distances.from_points(points).diameter, None, None
            for engine in ENGINES:
                with console.status(f"{name}, {engine}"):
                    diagram_file = Path(folder) / f"{name}-{engine}.npy"
                    times = repeats if len(points) <= 2000 else 1
                    found = in_own_process(engine, points_file, diagram_file, times)
                diagram = np.load(diagram_file)
                diagram = diagram[np.lexsort(diagram.T)].astype(np.float64)
                if reference is None or mine is None:
                    reference, mine = diagram, found
                # above 0, GUDHI tells a number next to it for diagrams that are equal
                distance = 0.0 if np.array_equal(reference, diagram) else bottleneck_distance(reference, diagram)
                apart = f"{distance / diameter:.0e}"
                row = [name if engine == "Strata" else "", len(points), points.shape[1], engine, len(diagram)]
                ratios = [f"{found[key] / mine[key]:.1f}x" for key in ("seconds", "peak")]
                seconds, peak = f"{found['seconds']:.3f}", round(found["peak"])
                rows.append([*row, seconds, ratios[0], peak, ratios[1], "" if engine == "Strata" else apart])
    columns = ["cloud", "points", "d", "engine", "H1 bars", "CPU s", "ratio", "peak MB", "ratio", "difference"]
    return Table(f"H0 and H1, one thread, least of {repeats} runs (4000 points: one run)", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="600 and 1200 points only")
    parser.add_argument("--clouds", nargs="+", choices=list(CLOUDS), help="these clouds only")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each engine (default: 3)")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        engine, points, diagram, repeats = arguments.measure
        print(json.dumps(measure(engine, Path(points), Path(diagram), int(repeats))))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 140
    cold, warm = first_calls()
    console.print(
        f"First call in a process: {cold:.1f} CPU s to compile, once per machine; then {warm:.1f} s, imports included"
    )
    names = arguments.clouds or (list(QUICK) if arguments.quick else list(CLOUDS))
    print_table(compare_engines(names, arguments.repeats, console), console)


if __name__ == "__main__":
    main()
