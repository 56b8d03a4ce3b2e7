"""CPU time of actopo's measurements: Strata's frozen_v5 against actopo itself, on actopo's example clouds.

    python -m benchmarks.bench_frozen_v5          # half a minute

Two clouds of 600 points in 896 dimensions, their union of 1200. Both start from the points each time; the better of
two runs counts, one thread. The results must be equal to the last printed digit, or the benchmark fails. What Strata
needs when the diagrams are there already (several measurements of one cloud) is beside it.
"""

import argparse
from typing import Any

import actopo
from actopo.data import load_example_cloud
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.bench_fit import cpu_seconds
from src.topology.protocols import frozen_v5


def printed(found: Any) -> str:
    """A result as it is printed."""
    found = found.to_dict() if hasattr(found, "to_dict") else found
    return str({name: str(value) for name, value in found.items()} if isinstance(found, dict) else found)


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    base, instruct = load_example_cloud("base"), load_example_cloud("instruct")
    clouds = [frozen_v5.Cloud.from_points(points) for points in (base, instruct)]
    works = {
        "measure": lambda package, a, b: package.measure(a),
        "survival_curve": lambda package, a, b: package.survival_curve(a),
        "phi": lambda package, a, b: package.phi(a, b),
        "bottleneck_distance": lambda package, a, b: package.bottleneck_distance(a, b),
        "union_test, own scales": lambda package, a, b: package.union_test(a, b, independent_eps=True),
        "union_test, shared scale": lambda package, a, b: package.union_test(a, b),
    }
    table = Table(title="measurements of actopo, seconds of CPU time")
    for column in ("", "actopo", "Strata", "times faster", "diagrams known"):
        table.add_column(column, justify="right" if column else "left")
    frozen_v5.measure(base[:50])  # compiles, and imports
    actopo.bottleneck_distance(base[:50], instruct[:50])
    with threadpool_limits(1):
        for name, work in works.items():
            theirs, expected = cpu_seconds(lambda work=work: work(actopo, base, instruct))
            ours, found = cpu_seconds(lambda work=work: work(frozen_v5, base, instruct))
            if printed(found) != printed(expected):
                raise SystemExit(f"{name}: {printed(found)} is not {printed(expected)}")
            work(frozen_v5, *clouds)
            known, _ = cpu_seconds(lambda work=work: work(frozen_v5, *clouds))
            table.add_row(name, f"{theirs:.3f}", f"{ours:.3f}", f"{theirs / ours:.1f}", f"{known:.3f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
