import hashlib

import pytest

from src.artifacts.files import checksums, content_digest, relative_files, write_json


def test_checksums_are_those_of_hashlib(tmp_path):
    content = bytes(range(256)) * 999
    (tmp_path / "a").write_bytes(content)
    assert checksums(tmp_path, ["a"]) == {"a": [len(content), hashlib.sha256(content).hexdigest()]}


def test_content_digest_sees_names_and_contents(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1" * 1000)
    b.write_bytes(b"2" * 1000)
    before = content_digest([a, b])
    assert content_digest([b, a]) == before
    b.write_bytes(b"2" * 999 + b"3")
    assert content_digest([a, b]) != before
    changed = content_digest([a, b])
    assert content_digest([a, b.rename(tmp_path / "c")]) != changed


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert relative_files(tmp_path) == ["x.json"]
