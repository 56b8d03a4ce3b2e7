"""One part of an activation store: a zarr group of arrays along one token axis, and a manifest that seals it.

The manifest is written last, so a part without one is unfinished and is made again. One writer owns a whole part,
because zarr loses data when two processes write into one shard.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from zarr.codecs import BloscCodec, Crc32cCodec

from src.artifacts.drafts import abandoned_drafts, locked_draft
from src.artifacts.files import changed_files, checksums, disk_errors, fsync_tree, relative_files, write_json
from src.artifacts.locks import locked
from src.artifacts.meta import PLAN
from src.errors import StrataError
from src.hook_points import HookPoint, refuse_shifted

# zarr 3 and Arrow have no bfloat16: its bits are kept as uint16, and the true dtype is named in the attributes
_ZARR_DTYPES = {torch.bfloat16: "uint16", torch.float16: "float16", torch.float32: "float32"}
_CHUNK_BYTES = 6 * 2**20
_SHARD_CHUNKS = 16
# else zarr compares every chunk with zeros, which costs more than compressing it, and leaves out those that are equal
_WRITING: Any = {"write_empty_chunks": True}
# measured on residual streams: bitshuffle + lz4 costs a third of zstd's time, and bfloat16 bits compress best with it
_COMPRESSOR = BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle")
# of each chunk, compared whenever it is read: a flipped bit is an error, never a wrong number
_CHECKSUM = Crc32cCodec()


@dataclass(eq=False)
class PartData:
    """The contents of a part, in memory.

    token_ids, position (index within the sequence), keep (see src.text.Keep): one per token.
    sequence_start: offsets into the token axis, one more than there are sequences.
    document: index in the dataset of the document that each sequence is (a piece of).
    activations: per hook point one row per token, in the storage dtype.
    """

    token_ids: Int[np.ndarray, " token"]
    position: Int[np.ndarray, " token"]
    keep: UInt8[np.ndarray, " token"]
    sequence_start: Int[np.ndarray, " sequence+1"]
    document: Int[np.ndarray, " sequence"]
    activations: Mapping[HookPoint, Float[Tensor, "token d_model"]]


@dataclass(frozen=True)
class Manifest:
    """What a sealed part holds. files: relative path -> [bytes, sha256]; keep: reason -> number of tokens."""

    fingerprint: str
    part: int
    first_sequence: int
    n_sequences: int
    n_tokens: int
    keep: dict[str, int]
    files: dict[str, list[Any]]


def part_folder(store: Path, part: int) -> Path:
    """The zarr group of a part."""
    return store / f"part-{part:05d}.zarr"


def manifest_path(store: Path, part: int) -> Path:
    """The file whose presence says that a part is finished."""
    return store / f"part-{part:05d}.json"


def array_name(point: HookPoint) -> str:
    """`resid_post/05`; StrataError for a point with an offset."""
    refuse_shifted([point])
    return f"{point.hook}/{point.layer:02d}"


def write_part(
    store: Path, part: int, first_sequence: int, data: PartData, keep: dict[str, int], seal: str
) -> Manifest:
    """Write a part beside its place, force it to the disk, rename it, and seal it with its manifest.

    seal: the fingerprint of the store, which keeps parts of different stores apart. If the part is there already and
    undamaged, it stays. Raises StrataError on a full disk.
    """
    place = part_folder(store, part)
    lock = store / PLAN
    with disk_errors(store):
        for leftover in abandoned_drafts(place):
            shutil.rmtree(leftover, ignore_errors=True)
        with locked_draft(place, lock) as draft:
            _write_arrays(draft, data)
            fsync_tree(draft)
            manifest = Manifest(
                fingerprint=seal,
                part=part,
                first_sequence=first_sequence,
                n_sequences=len(data.sequence_start) - 1,
                n_tokens=len(data.token_ids),
                keep=keep,
                files=checksums(draft, relative_files(draft)),
            )
            with locked(lock):
                there = read_manifest(store, part, seal)
                if there == manifest and not damage(store, manifest):
                    return manifest  # another process was asked to make the same part
                manifest_path(store, part).unlink(missing_ok=True)
                if place.exists():
                    shutil.rmtree(place)
                draft.rename(place)
                write_json(manifest_path(store, part), asdict(manifest))
    return manifest


def _write_arrays(folder: Path, data: PartData) -> None:
    group = zarr.create_group(folder)
    axes = {"token_ids": "token", "position": "token", "keep": "token"}
    axes |= {"sequence_start": "sequence_start", "document": "sequence"}
    for name, axis in axes.items():
        values = getattr(data, name)
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=(max(1, len(values)),),
            dtype=values.dtype,
            compressors=(_COMPRESSOR, _CHECKSUM),
            dimension_names=[axis],
            config=_WRITING,
        )
        array[:] = values
    for point, rows in data.activations.items():
        n_tokens, d_model = rows.shape
        n_chunks = max(1, -(-n_tokens * d_model * rows.element_size() // _CHUNK_BYTES))
        chunk = max(1, -(-n_tokens // n_chunks))
        array = group.create_array(
            array_name(point),
            shape=(n_tokens, d_model),
            chunks=(chunk, d_model),
            shards=(chunk * min(_SHARD_CHUNKS, n_chunks), d_model),
            dtype=_ZARR_DTYPES[rows.dtype],
            compressors=(_COMPRESSOR, _CHECKSUM),
            dimension_names=["token", "d_model"],
            config=_WRITING,
            attributes={"dtype": str(rows.dtype).removeprefix("torch."), "hook_point": str(point)},
        )
        array[:] = (rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows).numpy()


def read_manifest(store: Path, part: int, seal: str) -> Manifest | None:
    """The manifest of a finished part of this store, or None if the part must be made (again).

    A part counts as finished when its manifest can be read, carries the store's fingerprint, and all its files are
    there with their sizes; contents are checked by `damage`.
    """
    try:
        manifest = Manifest(**json.loads(manifest_path(store, part).read_text(encoding="utf-8")))
        folder = part_folder(store, part)
        whole = all((folder / name).stat().st_size == size for name, (size, _) in manifest.files.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return manifest if whole and manifest.fingerprint == seal else None


def damage(store: Path, manifest: Manifest) -> list[str]:
    """One line for each file of a part that differs from its checksum."""
    return changed_files(part_folder(store, manifest.part), manifest.files)


class Part:
    """A finished part, read array by array.

    seal: the fingerprint of the store. Raises StrataError if files are missing or truncated, or, on reading, if the
    contents of an array don't fit its checksums.
    """

    def __init__(self, store: Path, index: int, first_sequence: int, seal: str) -> None:
        self.index = index
        self.first_sequence = first_sequence
        self._folder = part_folder(store, index)
        # zarr takes a missing chunk for zeros
        manifest = read_manifest(store, index, seal)
        if manifest is None:
            raise StrataError(
                f"{self._folder} is incomplete (files are missing or truncated): run the command that collected it "
                "again, and it is mended"
            )
        self._n_sequences, self._n_tokens = manifest.n_sequences, manifest.n_tokens
        try:
            self._group = zarr.open_group(self._folder, mode="r")
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise StrataError(f"{self._folder} can't be read ({error}); collect again with repair=true") from None

    def _read(self, name: str) -> np.ndarray:
        try:
            array = self._group[name]
            assert isinstance(array, zarr.Array)
            values = np.asarray(array[:])
            rows = {"sequence_start": self._n_sequences + 1, "document": self._n_sequences}.get(name, self._n_tokens)
            if len(values) != rows:
                raise ValueError(f"it has {len(values)} rows instead of {rows}")
            return values
        except (KeyError, RuntimeError, ValueError, OSError, TypeError, IndexError, AssertionError) as error:
            raise StrataError(f"{self._folder}/{name} is damaged ({error}); collect again with repair=true") from None

    @property
    def token_ids(self) -> Int[np.ndarray, " token"]:
        """Token ids, int32."""
        return self._read("token_ids")

    @property
    def position(self) -> Int[np.ndarray, " token"]:
        """Index of each token within its sequence, int32."""
        return self._read("position")

    @property
    def keep(self) -> UInt8[np.ndarray, " token"]:
        """0 = counted in statistics, else the reason why not (src.text.Keep)."""
        return self._read("keep")

    @property
    def sequence_start(self) -> Int[np.ndarray, " sequence+1"]:
        """Offsets of the sequences into the token axis, int64."""
        return self._read("sequence_start")

    @property
    def sequence(self) -> Int[np.ndarray, " token"]:
        """The index of each token's sequence within the whole store, int64."""
        lengths = np.diff(self.sequence_start)
        return self.first_sequence + np.repeat(np.arange(len(lengths)), lengths)

    @property
    def document(self) -> Int[np.ndarray, " sequence"]:
        """Index in the dataset of the document that each sequence is (a piece of), int64."""
        return self._read("document")

    def activations(self, point: HookPoint) -> Float[Tensor, "token d_model"]:
        """All rows of a hook point, in the storage dtype, on the CPU."""
        rows = torch.from_numpy(self._read(array_name(point)))
        return rows.view(torch.bfloat16) if rows.dtype == torch.uint16 else rows
