"""Parts of a store: what is written is read back to the bit, and a process that dies leaves nothing half done."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from src.activations import parts
from src.activations.parts import Part, PartData, damage, manifest_path, part_folder, read_manifest, write_part
from src.artifacts.files import checksums
from src.artifacts.meta import PLAN
from src.errors import StrataError
from src.hook_points import HookPoint
from tests.fixtures.tiny_project import part_digests, start_forked

SEAL = "a store's fingerprint"
POINTS = [HookPoint("resid_post", 0), HookPoint("mlp_out", 11)]
COUNTS = {"counted": 7}


def part_data(dtype: torch.dtype = torch.float32, n_tokens: int = 7, d_model: int = 5) -> PartData:
    draws = torch.Generator().manual_seed(n_tokens)
    return PartData(
        token_ids=np.arange(n_tokens, dtype=np.int32) * 1000,
        position=np.arange(n_tokens, dtype=np.int32) % 4,
        keep=np.arange(n_tokens, dtype=np.uint8) % 3,
        sequence_start=np.array([0, 4, n_tokens], np.int64),
        document=np.array([2**40, 2**40 + 3], np.int64),
        activations={point: torch.randn(n_tokens, d_model, generator=draws).to(dtype) for point in POINTS},
    )


def write(store: Path, data: PartData, part: int = 3) -> Part:
    store.mkdir(exist_ok=True)
    (store / PLAN).touch()
    write_part(store, part, 6, data, COUNTS, SEAL)
    return Part(store, part, 6, SEAL)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_come_back_to_the_bit(tmp_path, dtype):
    data = part_data(dtype)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, torch.finfo(dtype).tiny / 2]).to(dtype)
    data.activations[POINTS[0]][2] = odd
    part = write(tmp_path, data)
    bits = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}[dtype]
    for point in POINTS:
        found = part.activations(point)
        assert found.dtype == dtype
        assert torch.equal(found.view(bits), data.activations[point].view(bits))
    for name in ("token_ids", "position", "keep", "sequence_start", "document"):
        expected = getattr(data, name)
        found = getattr(part, name)
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()
    assert part.sequence.tolist() == [6, 6, 6, 6, 7, 7, 7]


def test_arrays_of_several_chunks_and_shards_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK_BYTES", 5 * 4 * 3)  # three rows
    monkeypatch.setattr(parts, "_SHARD_CHUNKS", 2)
    data = part_data(n_tokens=17)
    part = write(tmp_path, data)
    assert len(list((part_folder(tmp_path, 3) / "resid_post/00/c").rglob("0"))) > 2
    for point in POINTS:
        assert torch.equal(part.activations(point), data.activations[point])


def test_zarr_alone_can_read_a_part(tmp_path):
    data = part_data(torch.bfloat16)
    write(tmp_path, data)
    array = zarr.open_group(part_folder(tmp_path, 3), mode="r")["mlp_out/11"]
    assert array.attrs.asdict() == {"dtype": "bfloat16", "hook_point": "mlp_out.11"}
    assert array.metadata.dimension_names == ("token", "d_model")
    # the upper half of the bits of a float32 is a bfloat16
    rows = (np.asarray(array[:]).astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(rows, data.activations[POINTS[1]].float().numpy())


def test_the_manifest_tells_what_the_part_holds(tmp_path):
    write(tmp_path, part_data())
    manifest = read_manifest(tmp_path, 3, SEAL)
    assert manifest is not None
    assert (manifest.part, manifest.first_sequence, manifest.n_sequences, manifest.n_tokens) == (3, 6, 2, 7)
    assert manifest.keep == COUNTS
    assert {name.split("/")[0] for name in manifest.files} >= {"token_ids", "resid_post", "mlp_out", "zarr.json"}
    assert damage(tmp_path, manifest) == []


def test_a_part_of_zeros_still_has_all_its_files(tmp_path):
    data = part_data()
    zeros = {point: torch.zeros_like(rows) for point, rows in data.activations.items()}
    write(tmp_path, replace(data, activations=zeros))
    manifest = read_manifest(tmp_path, 3, SEAL)
    assert manifest is not None
    assert "resid_post/00/c/0/0" in manifest.files


def chunk_of(store: Path) -> Path:
    return part_folder(store, 3) / "resid_post/00/c/0/0"


def truncate(store: Path) -> None:
    os.truncate(chunk_of(store), chunk_of(store).stat().st_size - 1)


@pytest.mark.parametrize(
    "harm",
    [
        truncate,
        lambda store: chunk_of(store).unlink(),
        lambda store: manifest_path(store, 3).unlink(),
        lambda store: manifest_path(store, 3).write_text('{"part": 3'),
        lambda store: manifest_path(store, 3).write_text("[1, 2]"),
        lambda store: manifest_path(store, 3).write_text(json.dumps({"kind": "foreign"})),
    ],
    ids=["truncated", "missing", "no manifest", "half a manifest", "list", "foreign manifest"],
)
def test_an_incomplete_part_is_not_taken_for_finished(tmp_path, harm):
    write(tmp_path, part_data())
    harm(tmp_path)
    assert read_manifest(tmp_path, 3, SEAL) is None
    # zarr would read zeros where a chunk is missing
    with pytest.raises(StrataError, match=r"part-00003.zarr is incomplete .* run the command .* again"):
        Part(tmp_path, 3, 6, SEAL)


def test_a_part_of_another_store_is_not_taken_for_ours(tmp_path):
    write(tmp_path, part_data())
    assert read_manifest(tmp_path, 3, "another fingerprint") is None


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path):
    write(tmp_path, part_data())
    manifest = read_manifest(tmp_path, 3, SEAL)
    assert manifest is not None
    content = bytearray(chunk_of(tmp_path).read_bytes())
    content[len(content) // 2] ^= 4
    chunk_of(tmp_path).write_bytes(content)
    assert read_manifest(tmp_path, 3, SEAL) == manifest
    assert damage(tmp_path, manifest) == ["resid_post/00/c/0/0: its content has changed (checksum)"]
    with pytest.raises(StrataError, match=r"resid_post/00 is damaged .*repair=true"):
        Part(tmp_path, 3, 6, SEAL).activations(HookPoint("resid_post", 0))
    write(tmp_path, part_data())  # what is damaged is replaced
    assert damage(tmp_path, manifest) == []


def test_a_part_that_another_process_has_made_meanwhile_stays(tmp_path, monkeypatch):
    steps = []

    def slow_checksums(*arguments: Any) -> Any:
        monkeypatch.undo()
        write(tmp_path, part_data())  # the other one overtakes
        steps.append(chunk_of(tmp_path).stat().st_ino)
        return checksums(*arguments)

    monkeypatch.setattr(parts, "checksums", slow_checksums)
    write(tmp_path, part_data())
    assert [chunk_of(tmp_path).stat().st_ino] == steps
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_named_and_leaves_no_draft(tmp_path, monkeypatch):
    write(tmp_path, part_data(), part=0)
    before = part_digests(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)  # where a file system that allocates late notices it
    with pytest.raises(StrataError, match=r"the disk that holds .* is full: free space there or set artifacts_dir"):
        write(tmp_path, part_data(), part=1)
    assert part_digests(tmp_path) == before


def die_in_write_part(store: str, module: str, name: str, when: str) -> None:
    """Write a part, and die as a killed process does, before or after a step of it."""
    holder = {"parts": parts, "os": os, "Path": Path}[module]
    step = getattr(holder, name)

    def fatal(*arguments: object, **keys: object) -> object:
        if when == "after":
            step(*arguments, **keys)
        os._exit(9)

    setattr(holder, name, fatal)
    write(Path(store), part_data(torch.bfloat16))


@pytest.mark.parametrize(
    ("module", "name", "when"),
    [
        ("parts", "_write_arrays", "after"),
        ("parts", "checksums", "after"),
        ("Path", "rename", "before"),
        ("Path", "rename", "after"),
        ("os", "replace", "before"),
        ("parts", "write_json", "after"),
    ],
)
def test_a_process_that_dies_while_it_writes_a_part_leaves_none_or_a_whole_one(tmp_path, module, name, when):
    write(tmp_path / "undisturbed", part_data(torch.bfloat16))
    store = tmp_path / "store"
    store.mkdir()
    process = start_forked(die_in_write_part, str(store), module, name, when)
    process.join(300)
    assert process.exitcode == 9
    finished = read_manifest(store, 3, SEAL)
    assert (finished is not None) == ((name, when) == ("write_json", "after"))
    write(store, part_data(torch.bfloat16))
    found = {file: digest for file, digest in part_digests(store).items() if not file.endswith(".tmp")}
    assert found == part_digests(tmp_path / "undisturbed")
