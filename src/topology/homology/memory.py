"""What a cloud's distances and homology take in memory, said before they take it."""

import psutil

from src.errors import StrataError

_UNITS = ((2**30, "GB"), (2**20, "MB"), (2**10, "kB"))


def require_memory(needed: int, n_points: int, purpose: str, limit: int | None = None) -> None:
    """Refuse what needs more than `limit` bytes; without one, than the machine has free.

    Raises:
        StrataError: if it does.
    """
    free = psutil.virtual_memory().available if limit is None else limit
    if needed > free:
        kind = "are free" if limit is None else "are allowed"
        raise StrataError(
            f"{purpose} of {n_points} points need {_size(needed)} of memory, and {_size(free)} {kind}: "
            "take a subsample of the points; memory grows with their square"
        )


def _size(n_bytes: int) -> str:
    for unit, name in _UNITS:
        if n_bytes >= unit:
            return f"{n_bytes / unit:.1f} {name}"
    return f"{n_bytes} bytes"
