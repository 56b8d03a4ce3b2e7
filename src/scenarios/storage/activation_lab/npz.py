"""Activation Lab's npz files: one member for each layer and kind of tensor. Foreign files are taken for hostile."""

import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from src.errors import StrataError

# its names of tensors of a layer, and ours; its mlp_act is the activation function of the gate alone, and left out
LAYER_KEYS = {
    "hidden_in": "resid_pre",
    "hidden_out": "resid_post",
    "attn_out": "attn_out",
    "mlp_down_out": "mlp_out",
    "q": "q",
    "k": "k",
    "v": "v",
    "attn_weights": "attention",
    "mlp_gate": "mlp_gate",
    "mlp_up": "mlp_up",
    "mlp_down_in": "mlp_act",
}
LOGITS_KEY = "logits"
REMEDY = "give a run as Activation Lab wrote it"
_LAYER_MEMBER = re.compile(r"layer_(\d{2,4})/([a-z_]{1,20})")
_OTHER_MEMBERS = {LOGITS_KEY, "embeddings", "qkv_last"}
_OTHER_KEYS = {*LAYER_KEYS, "mlp_act"}
_DTYPES = {"float16", "float32", "float64"}
# expanded bytes that are sane: attention is half zeros, other activations hardly shrink
_ALWAYS_SANE, _MOST_EXPANSION = 64 * 2**20, 100


class LabTensors:
    """The members of an npz file; each is read when it is asked for.

    Raises StrataError if the file is missing, no npz, holds anything but tensors of Activation Lab, or expands to more
    than such tensors do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                infos = {info.filename: info for info in archive.infolist()}
                if len(infos) != len(archive.infolist()):
                    raise StrataError(f"{path} holds a name twice: it is no npz of Activation Lab")
                expanded = sum(info.file_size for info in infos.values())
                packed = sum(info.compress_size for info in infos.values())
                if expanded > _ALWAYS_SANE + _MOST_EXPANSION * packed:
                    raise StrataError(f"{path} would expand to {expanded / 1e9:.3g} GB: no activations shrink so much")
                self.shapes = {self._key(name): self._shape(archive, info) for name, info in infos.items()}
        except (OSError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
            raise StrataError(f"{path} can't be read as npz ({error}): {REMEDY}") from None

    def _key(self, name: str) -> str:
        key = name.removesuffix(".npy")
        layer = _LAYER_MEMBER.fullmatch(key)
        known = key in _OTHER_MEMBERS or (layer is not None and layer[2] in _OTHER_KEYS)
        if not known or key == name:
            raise StrataError(f"{self.path} holds {name!r}, which is no tensor of Activation Lab")
        return key

    def _shape(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
        """The shape that a member's header tells, if its size is that of such an array."""
        with archive.open(info) as member:
            version = npy.read_magic(member)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"{info.filename}: npy version {version}")
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = header(member)
            expected = member.tell() + math.prod(shape) * dtype.itemsize
        if dtype.name not in _DTYPES or expected != info.file_size or min(shape, default=1) < 0:
            raise ValueError(f"{info.filename}: {dtype} {shape} in {info.file_size} bytes")
        return shape

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of which there is anything."""
        found = (_LAYER_MEMBER.fullmatch(key) for key in self.shapes)
        return tuple(sorted({int(match[1]) for match in found if match}))

    def read(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Some tensors. Raises StrataError if one is missing or damaged."""
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in keys}
        except (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError) as error:
            raise StrataError(f"{self.path} can't be read as npz ({error}): {REMEDY}") from None


def layer_key(layer: int, name: str) -> str:
    """`layer_03/hidden_out`."""
    return f"layer_{layer:02d}/{name}"


def save_npz(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors, stored as they are: deflating them costs thirty times as much and saves a fifth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(tensors))
