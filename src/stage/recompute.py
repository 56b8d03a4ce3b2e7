"""Verification beyond checksums: kinds of artifacts whose numbers can be computed again from what they hold."""

from pathlib import Path

from src.artifacts import open_artifact


def recomputed(folder: Path, kind: str) -> list[str]:
    """One line for each number of an artifact that does not come out again; none for kinds that hold no inputs.

    What a kind needs is imported for that kind alone.

    Raises:
        StrataError: the artifact can't be opened.
    """
    if kind == "topology":
        from src.stage.topology.recomputing import differences

        return differences(open_artifact(folder, kind))
    return []
