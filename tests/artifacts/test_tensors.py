from pathlib import Path

import pytest
import torch

from src.artifacts.files import disk_errors
from src.artifacts.tensors import load_tensors, read_header, save_tensors, write_header
from src.errors import StrataError

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    "b": torch.tensor([1, 2]),
    "c": torch.ones(2, dtype=torch.bfloat16),
}


def test_tensors_come_back_all_or_by_name(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS)
    loaded = load_tensors(path, "remedy")
    assert set(loaded) == set(TENSORS)
    assert all(
        torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )
    assert list(load_tensors(path, "remedy", ["b"])) == ["b"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no disk that is always full")
def test_a_full_disk_is_told_as_such(tmp_path):
    place = tmp_path / "x.safetensors"
    place.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        save_tensors(place, {"a": torch.zeros(100_000)})
    with pytest.raises(StrataError, match="is full: free space"), disk_errors(tmp_path):
        save_tensors(place, {"a": torch.zeros(100_000)})


def test_missing_truncated_and_foreign_files_come_with_the_remedy(tmp_path):
    path = tmp_path / "x.safetensors"

    def refused(names=None):
        with pytest.raises(StrataError, match=r"x\.safetensors can't be read .*: do this"):
            load_tensors(path, "do this", names)

    refused()
    save_tensors(path, TENSORS)
    refused(["a", "z"])
    whole = path.read_bytes()
    for content in (whole[:-3], whole[:5], b"", b"no tensors at all"):
        path.write_bytes(content)
        refused()


def test_headers_know_their_kind_and_version(tmp_path):
    path = tmp_path / "x.json"
    write_header(path, "big_map", 2, {"n": 3})
    assert read_header(path, "big_map", 2, "do this") == {"kind": "big_map", "version": 2, "n": 3}
    for kind, version in (("big_map", 1), ("small_map", 2)):
        with pytest.raises(StrataError, match=rf"holds no {kind.replace('_', ' ')} of version {version}: do this"):
            read_header(path, kind, version, "do this")
    for content, complaint in (("{", "can't be read"), ("[]", "holds no big map")):
        path.write_text(content)
        with pytest.raises(StrataError, match=complaint):
            read_header(path, "big_map", 2, "do this")
    with pytest.raises(StrataError, match="can't be read"):
        read_header(tmp_path / "none.json", "big_map", 2, "do this")
