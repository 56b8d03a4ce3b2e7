"""Check an artifact: are all its files there, unchanged, and of the settings that its meta.json tells?

  python verify_artifact.py artifacts/activations/NAME [MORE ...]

Numbers of a topology artifact are computed again from the clouds that it holds. Exits with 1 if anything is wrong. A
damaged activation store is mended by collect_activations.py with repair=true.
"""

import sys
from pathlib import Path

from src.artifacts import open_meta, verify
from src.errors import StrataError
from src.stage.recompute import recomputed


def main() -> None:
    """Verify each path; print what is wrong with it, or that nothing is."""
    paths = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        return
    if not paths:
        sys.exit(__doc__)
    failed = False
    for path in paths:
        try:
            meta, problems = open_meta(path), verify(path)
            problems = problems or recomputed(path, meta.kind)
        except StrataError as error:
            problems, meta = [str(error)], None
        for problem in problems:
            print(f"{path}: {problem}")
        if meta is not None and not problems:
            print(f"{path}: {len(meta.files)} files of {meta.kind} {meta.fingerprint[:8]} are whole")
        failed |= bool(problems)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
