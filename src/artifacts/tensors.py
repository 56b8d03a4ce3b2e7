"""Small and large tensors on disk, as safetensors, with a JSON header beside them where they need one."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from src.artifacts.files import write_json
from src.errors import StrataError


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any device to a safetensors file and force it to the disk; takes their size in memory once more.

    A disk that is full or can't be written is an OSError, as `disk_errors` expects it, which safetensors' own writer
    hides in an exception of its own.
    """
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load_tensors(
    path: Path, remedy: str, names: Sequence[str] | None = None, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Read the named tensors of a file, or all; only those are read from the disk.

    Raises StrataError, with the remedy, if the file or a tensor is missing, or it is damaged or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    except (OSError, SafetensorError) as error:
        raise StrataError(f"{path} can't be read ({error}): {remedy}") from None


def write_header(path: Path, kind: str, version: int, values: Mapping[str, Any]) -> None:
    """Write the JSON header of tensors: what they are, the version of their format, and what else is to be known."""
    write_json(path, {"kind": kind, "version": version, **values})


def read_header(path: Path, kind: str, version: int, remedy: str) -> dict[str, Any]:
    """Read a JSON header. Raises StrataError, with the remedy, if it is missing, damaged, or of another kind."""
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StrataError(f"{path} can't be read ({error}): {remedy}") from None
    if not isinstance(header, dict) or (header.get("kind"), header.get("version")) != (kind, version):
        raise StrataError(f"{path} holds no {kind.replace('_', ' ')} of version {version}: {remedy}")
    return header
