"""What a stage does to its process before it starts, and what it notes of the machine: threads, seeds, versions."""

import importlib.metadata
import os
import platform
import random
import subprocess
import sys
from pathlib import Path

# the packages whose versions can change a number
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "zarr",
    "safetensors",
    "pyarrow",
    "datasets",
    "sae-lens",
)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """The commit of this checkout, with `-dirty` if it was changed; None outside of git."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def limit_threads(threads: int | None) -> None:
    """Limit torch and BLAS to so many threads; None = what the shell's OMP_NUM_THREADS says, else all cores."""
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    # what the user's shell or launcher has set counts: workers side by side must not all take every core
    shell = os.environ.get("OMP_NUM_THREADS", "")
    count = threads or (int(shell) if shell.isdecimal() and int(shell) else available)
    # read by BLAS and OpenMP when numpy and torch are imported, which is later
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(count))
    import torch

    torch.set_num_threads(count)


def no_progress_bars() -> None:
    """Keep the bars of transformers and datasets, which read this when they are imported, out of log files."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def seed_everything(seed: int) -> None:
    """Seed every generator, and choose arithmetic that two runs repeat bit by bit."""
    # needed by deterministic cuBLAS, and read when CUDA starts
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import numpy as np
    import torch

    random.seed(seed)
    # libraries that we call (datasets, transformers) draw from the global generator
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    if torch.cuda.is_available():  # on the CPU it changes nothing that we use, and importing it takes seconds
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
