"""What collect_activations.py shows of a store."""

from src.artifacts import Artifact
from src.report.tables import Table

_REASONS = {
    "counted": "counted in statistics",
    "bos": "left out: beginning of sequence",
    "special": "left out: other special token",
    "sink": "left out: attention sink (norm)",
    "non_finite": "left out: NaN or infinite",
    "first": "left out: first token, where there is no BOS",
}


def keep_table(store: Artifact) -> Table:
    """How many tokens count in statistics, and how many each reason leaves out."""
    counts: dict[str, int] = store.meta.summary["keep"]
    total = sum(counts.values())
    rows = [[_REASONS[reason], count, count / total] for reason, count in counts.items() if count]
    return Table("Tokens", ["", "tokens", "share"], rows)
