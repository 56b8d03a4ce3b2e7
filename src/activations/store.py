"""The activation store: parts on disk, read one by one in memory that does not grow with the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from src.activations.parts import Part
from src.artifacts import Artifact, open_artifact
from src.errors import StrataError
from src.hook_points import HookPoint

STORAGE_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class StoreLayout:
    """How a store is cut: part i holds the sequences [i * sequences_per_part, (i + 1) * sequences_per_part)."""

    hook_points: tuple[HookPoint, ...]
    d_model: int
    n_layers: int
    storage_dtype: str
    n_sequences: int
    n_tokens: int
    sequences_per_part: int

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return -(-self.n_sequences // self.sequences_per_part)

    def sequences_of(self, part: int) -> range:
        """The sequences of a part, as indices into the sequence table."""
        start = part * self.sequences_per_part
        return range(start, min(start + self.sequences_per_part, self.n_sequences))

    @property
    def bytes_per_token(self) -> int:
        """Uncompressed bytes of one token: all hook points, its id, position and keep flag.

        (What is stored once for each sequence, 16 bytes, is left to the compressor.)
        """
        return len(self.hook_points) * self.d_model * STORAGE_DTYPES[self.storage_dtype].itemsize + 9

    def as_json(self) -> dict[str, Any]:
        """Plain values for meta.json."""
        return {**vars(self), "hook_points": [str(point) for point in self.hook_points]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "StoreLayout":
        """The inverse of as_json."""
        return cls(**{**values, "hook_points": tuple(HookPoint.parse(text) for text in values["hook_points"])})


def open_store(folder: Path | str) -> "ActivationStore":
    """Open a finished store, as a user has it on disk. Raises StrataError for anything else."""
    return ActivationStore(open_artifact(Path(folder), "activations"))


class ActivationStore:
    """A finished store. Iterate over it for its parts."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.path: Path = artifact.path
        self.layout = StoreLayout.from_json(artifact.meta.summary["layout"])

    @property
    def model_name(self) -> str:
        """The label of the model that the activations are of."""
        return self.artifact.meta.config["model"]["name"]

    def __iter__(self) -> Iterator[Part]:
        for index in range(self.layout.n_parts):
            yield self.part(index)

    def part(self, index: int) -> Part:
        """One of the parts, 0 to layout.n_parts - 1."""
        return Part(self.path, index, self.layout.sequences_of(index).start, self.artifact.meta.fingerprint)

    def require(self, points: Sequence[HookPoint]) -> None:
        """StrataError if the store lacks one of the hook points; offsets are left out of account."""
        unshifted = dict.fromkeys(point.at(0) for point in points)
        missing = [str(point) for point in unshifted if point not in self.layout.hook_points]
        if missing:
            layers: dict[str, list[int]] = {}
            for point in self.layout.hook_points:
                layers.setdefault(point.hook, []).append(point.layer)
            held = ", ".join(f"{hook} of layers {layers[hook]}" for hook in layers)
            raise StrataError(
                f"{self.path} has no {', '.join(missing)}: it holds {held} of a model with layers "
                f"0..{self.layout.n_layers - 1}; collect them, or choose other layers"
            )
