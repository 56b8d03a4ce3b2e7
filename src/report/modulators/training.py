"""What one run of train_modulator.py shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.report.finding import Finding


def training_finding(name: str, n_parameters: int, history: Sequence[Mapping[str, Any]]) -> Finding:
    """Losses and strengths over the steps."""
    evaluated = [record for record in history if "val" in record]
    first, last = evaluated[0]["val"], evaluated[-1]["val"]
    return Finding(
        f"Training {name} took the loss on val examples from {first:.4f} to {last:.4f} nats per token.\n\n"
        f"{n_parameters:,} numbers were trained, and the model stayed as it is.",
        records={"history": list(history)},
        metrics={"val": last},
    )
