"""The files of a checkpoint: which tensors they hold, and one tensor at a time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from transformers.utils.hub import cached_file

_ORDER = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies."""

    file: Path
    key: str
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor on the CPU. Its file is mapped for as long as the tensor lives, so that no other page is kept.

        Raises OSError, RuntimeError or SafetensorError for a damaged file.
        """
        if _is_safetensors(self.file):
            with safe_open(self.file, framework="pt") as opened:
                return opened.get_tensor(self.key)
        return _load_bin(self.file)[self.key]


def find_files(source: str, origin: Mapping[str, Any]) -> list[Path]:
    """The weight files of a local folder or a hub model (which are downloaded), safetensors before pickled ones.

    origin: what every loader of Transformers is told besides the source. Raises OSError if there are none.
    """
    options: dict[str, Any] = {"revision": origin.get("revision"), "_raise_exceptions_for_missing_entries": False}
    for name in _ORDER:
        found = cached_file(source, name, **options)
        if found is None:
            continue
        if not name.endswith(".index.json"):
            return [Path(found)]
        shards = sorted(set(json.loads(Path(found).read_text(encoding="utf-8"))["weight_map"].values()))
        return [Path(_present(source, shard, options)) for shard in shards]
    raise OSError(f"no file named {', '.join(_ORDER)}")


def _present(source: str, shard: str, options: dict[str, Any]) -> str:
    found = cached_file(source, shard, **options)
    if found is None:
        raise OSError(f"the index names {shard}, which is not there")
    return found


def stored_tensors(files: list[Path]) -> dict[str, StoredTensor]:
    """The tensors of all files by key, from headers alone.

    Raises OSError, RuntimeError or SafetensorError for a damaged file.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        if _is_safetensors(file):
            with safe_open(file, framework="pt") as opened:
                shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
        else:
            shapes = {key: tuple(value.shape) for key, value in _load_bin(file).items() if isinstance(value, Tensor)}
        found |= {key: StoredTensor(file, key, shape) for key, shape in shapes.items()}
    return found


def _is_safetensors(file: Path) -> bool:
    return file.suffix == ".safetensors"


def _load_bin(file: Path) -> dict[str, Tensor]:
    if not is_zipfile(file):
        raise SafetensorError(f"{file.name} is of PyTorch's format before 1.6, which can't be read in parts")
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
