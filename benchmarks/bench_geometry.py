"""Geometry against the straightforward ways: CPU time of both in one run, and whether they agree.

    python -m benchmarks.bench_geometry                      # all (minutes)
    python -m benchmarks.bench_geometry lexicon simplices    # some

lexicon: path distances of all pairs against NLTK's calls. simplices: batched volumes against a Python loop. circuits:
QK per head by low-rank QR against the dense d x d product. weights: the whole profile of a GPT-2-small shape against
the straightforward way.
"""

import argparse
from importlib import import_module

from rich.console import Console

PARTS = ("lexicon", "simplices", "circuits", "weights")


def main() -> None:
    """Measure the parts that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default all")
    parts = parser.parse_args().parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    console = Console()
    for part in parts:
        import_module(f"benchmarks.geometry.{part}").measure(console)


if __name__ == "__main__":
    main()
