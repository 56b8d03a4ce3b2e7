"""Refuse what would fill a disk, before a model runs."""

import shutil
from pathlib import Path

from src.errors import StrataError
from src.stage.scenarios.planning import PlannedScenario

# a disk that is filled to the last byte helps nobody
_SPARE_BYTES = 64 * 2**20


def refuse_large(planned: PlannedScenario, n_bytes: int, max_gb: float) -> None:
    """StrataError if the states of a scenario need more than the limit (in 10^9 bytes)."""
    if n_bytes > max_gb * 1e9:
        raise StrataError(
            f"{planned.scenario.name} needs about {_gb(n_bytes)} on the disk, and max_gb={max_gb:g}: {_less(planned)}, "
            f"or allow it with max_gb={n_bytes / 1e9 * 1.01:.3g}"
        )


def refuse_full_disk(planned: PlannedScenario, place: Path, n_bytes: int) -> None:
    """StrataError if the disk can't hold so many bytes. place: the artifact's folder; what is there already counts."""
    existing = next(path for path in (place, *place.absolute().parents) if path.exists())
    there = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) if place.exists() else 0
    free = shutil.disk_usage(existing).free
    missing = n_bytes - there
    if missing + _SPARE_BYTES > free:
        raise StrataError(
            f"{place} needs about {_gb(max(missing, 0))} more, and its disk has {_gb(free)} free: {_less(planned)}, or "
            "set artifacts_dir=... to another disk"
        )


def _less(planned: PlannedScenario) -> str:
    """How to keep less."""
    capture = planned.scenario.capture
    ways = {
        "capture.preset=message_ends": capture.preset == "full",
        "capture.preset=last_token": capture.preset != "last_token",
        "capture.layers=[...]": True,
        "capture.attention_weights=false": capture.attention_weights,
        "capture.logits=false": capture.logits,
    }
    return f"keep less ({', '.join(way for way, helps in ways.items() if helps)})"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"
