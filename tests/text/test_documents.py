import gzip
import itertools
import json
from types import SimpleNamespace

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.config.shared import DatasetConfig
from src.errors import StrataError
from src.text import documents, files, local_files, pin_revision, read_documents

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]


def dataset(name, column="text", split=None, **keys):
    values = {"dataset_config": None, "dataset_data_dir": None, "dataset_revision": None, **keys}
    return DatasetConfig(dataset_name=str(name), text_column_name=column, dataset_split=split, **values)


def read(name, column="text", split=None, **keys):
    return list(read_documents(dataset(name, column, split, **keys)))


def write_json_lines(path, texts, column="text"):
    path.write_text("".join(json.dumps({column: text, "n": 1}) + "\n" for text in texts), encoding="utf-8")
    return path


def write_parquet(path, texts, **keys):
    pq.write_table(pa.table({"text": texts, "n": list(range(len(texts)))}), path, **keys)
    return path


# --- formats ----------------------------------------------------------------------------------------------------------


def test_every_format_gives_the_same_documents(tmp_path):
    texts = ["first\nline", "zweite Zeile: äöü\u2028same line", "", "last"]
    as_lines = write_json_lines(tmp_path / "a.jsonl", texts)
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(as_lines.read_bytes())
    with pa.output_stream(tmp_path / "a.jsonl.zst") as file:
        file.write(as_lines.read_bytes())
    (tmp_path / "list.json").write_text(json.dumps([{"text": text} for text in texts], indent=1))
    (tmp_path / "lines.json").write_bytes(as_lines.read_bytes())
    write_parquet(tmp_path / "a.parquet", texts, row_group_size=3)
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "list.json", "lines.json", "a.parquet"):
        assert read(tmp_path / name) == texts, name


def test_json_lines_may_have_blank_lines_a_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}')
    assert read(path) == ["a", "b"]


@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_plain_text_is_one_document_or_one_per_line(tmp_path, suffix):
    path = tmp_path / f"book{suffix}"
    path.write_text("one\n\ntwo\nthree", encoding="utf-8")
    assert read(path) == ["one\n\ntwo\nthree"]
    assert read(path, "line") == ["one", "", "two", "three"]


def test_null_is_an_empty_document(tmp_path):
    assert read(write_json_lines(tmp_path / "a.jsonl", ["a", None])) == ["a", ""]


def test_chats_come_as_messages_from_json_and_parquet(tmp_path):
    path = write_json_lines(tmp_path / "chats.jsonl", [CHAT], "messages")
    pq.write_table(pa.table({"messages": [CHAT, CHAT]}), tmp_path / "chats.parquet")
    assert read(path, "messages") == [CHAT]
    assert read(tmp_path / "chats.parquet", "messages") == [CHAT, CHAT]


def test_rows_are_streamed(tmp_path):
    path = write_json_lines(tmp_path / "a.jsonl", ["a"] * 5)
    with path.open("a") as file:
        file.write("not JSON\n")
    assert list(itertools.islice(read_documents(dataset(path)), 5)) == ["a"] * 5


# --- which files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "more").mkdir(parents=True)
    (folder / ".cache").mkdir()
    write_json_lines(folder / "train.jsonl", ["train"])
    write_json_lines(folder / "heldout.jsonl", ["heldout"])
    write_json_lines(folder / ".cache" / "train.jsonl", ["hidden"])
    write_parquet(folder / "more" / "train-00001-of-00002.parquet", ["train 2"])
    write_parquet(folder / "more" / "train-00000-of-00002.parquet", ["train 1"])
    (folder / "README.md").write_text("about")
    (folder / "image.png").write_bytes(b"")
    return folder


def test_folder_with_a_split_gives_the_files_with_that_stem(folder):
    assert read(folder, split="heldout") == ["heldout"]
    assert read(folder, split="train") == ["train 1", "train 2", "train"]


def test_folder_without_a_split_gives_all_files_in_the_order_of_their_paths(folder):
    assert read(folder) == ["heldout", "train 1", "train 2", "train"]


def test_data_dir_and_config_are_folders_inside_a_local_one(folder):
    assert read(folder.parent, dataset_data_dir="corpus", dataset_config="more") == ["train 1", "train 2"]
    with pytest.raises(StrataError, match=r"dataset\.dataset_config=other: .*is no folder"):
        read(folder, dataset_config="other")


def test_glob(folder):
    assert read(folder / "*.jsonl", split="ignored for patterns") == ["heldout", "train"]
    assert read(folder / "**" / "*.parquet") == ["train 1", "train 2"]


def test_relative_path_is_looked_up_in_the_working_directory_then_in_the_repository(tmp_path, monkeypatch):
    here, repository = tmp_path / "here", tmp_path / "repository"
    for root in (here, repository):
        (root / "corpus").mkdir(parents=True)
        write_json_lines(root / "corpus" / "both.jsonl", [root.name])
    write_json_lines(repository / "corpus" / "shipped.jsonl", ["shipped"])
    monkeypatch.chdir(here)
    monkeypatch.setattr(files, "REPOSITORY", repository)
    assert read("corpus/both.jsonl") == ["here"]
    assert read("corpus/shipped.jsonl") == ["shipped"]
    assert read("corpus/s*.jsonl") == ["shipped"]
    assert local_files(dataset("corpus")) == [here / "corpus" / "both.jsonl"]


def test_repository_is_where_the_configs_are():
    assert (files.REPOSITORY / "configs" / "dataset").is_dir()


# --- messages ---------------------------------------------------------------------------------------------------------


def broken(tmp_path, content, name="a.jsonl"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a\.jsonl:2: invalid JSON: Expecting value"),
        ("a.json", b'[{"text": "a"},\n{"text": ]', r"a\.json:2: invalid JSON"),
        ("a.jsonl", b'{"text": "a"}\n\n{"body": "b", "id": 1}\n', r"a\.jsonl:3: no column 'text'; .*: body, id$"),
        ("a.json", b'[{"body": "b"}]', r"a\.json, item 1: no column 'text'; .*: body$"),
        ("a.jsonl", b'"text"\n', r"a\.jsonl:1: expected a JSON object with the key 'text', found str"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', r"a\.jsonl:2: 'text' holds int, not text"),
        ("a.jsonl", b'{"text": ["a", "b"]}\n', r"a\.jsonl:1: 'text' is a list, .*'a' is no message"),
        ("a.jsonl", b'{"text": [{"from": "user"}]}\n', r"a\.jsonl:1: .*\{'from': 'user'\} is no message"),
        ("a.jsonl", b'{"text": "\xff\xfe"}\n', r"a\.jsonl is not UTF-8 text \(invalid start byte 0xff\): convert"),
        ("a.txt", b"caf\xe9 noir", r"a\.txt is not UTF-8 text \(invalid continuation byte 0xe9\): convert"),
        ("a.json", b'[{"text": "\xe9"}]', r"a\.json is not UTF-8 text"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), r"a\.jsonl is not UTF-8 text"),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 99_999, r"a\.jsonl:2: this JSON is nested too deeply to be read"),
        ("a.json", b"[" * 99_999, r"a\.json:1: this JSON is nested too deeply to be read"),
        ("a.jsonl", b'{"text": ' + b"1" * 9999 + b"}", r"a\.jsonl:1: this JSON cannot be read: Exceeds the limit"),
        ("a.jsonl", b"\n\n", r"dataset '.*a\.jsonl' is empty: it has no documents"),
        ("a.json", b"[]", r"is empty"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz cannot be read: .*zlib"),
        ("a.parquet", b"no parquet", r"a\.parquet cannot be read: .*Parquet"),
        ("a.csv", b"a,b", r"a\.csv is of a format that is not read: files end in \.jsonl, \.json, "),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, name, content, message):
    with pytest.raises(StrataError, match=message):
        read(broken(tmp_path, content, name))


def test_a_chat_of_nested_lists_is_shown_in_short(tmp_path):
    nested = b"[" * 400 + b"]" * 400
    with pytest.raises(StrataError, match=r"a\.jsonl:1: 'text' is a list.* is no message") as caught:
        read(broken(tmp_path, b'{"text": [' + nested + b"]}"))
    assert len(str(caught.value)) < 400


def test_missing_parquet_column_names_those_that_exist(tmp_path):
    with pytest.raises(StrataError, match=r"no column 'content'; set dataset\.text_column_name to one of: text, n$"):
        read(write_parquet(tmp_path / "a.parquet", ["a"]), "content")


def test_plain_text_has_no_columns(tmp_path):
    with pytest.raises(StrataError, match=r"has no column 'content': set dataset\.text_column_name to text"):
        read(broken(tmp_path, b"a", "a.txt"), "content")


def test_keys_for_the_hub_are_refused_for_local_text(folder):
    with pytest.raises(StrataError, match=r"dataset_revision=v1 has no meaning for the local"):
        read(folder, split="train", dataset_revision="v1")
    with pytest.raises(StrataError, match=r"dataset_config=x has no meaning for the file .*train\.jsonl"):
        read(folder / "train.jsonl", dataset_config="x")


def test_missing_split_names_those_that_exist(folder):
    with pytest.raises(StrataError, match=r"no file for dataset\.dataset_split=trian: it has heldout, train \("):
        read(folder, split="trian")


def test_folder_without_text(tmp_path):
    (tmp_path / "image.png").write_bytes(b"")
    with pytest.raises(StrataError, match=r"has no files to read: they end in \.jsonl"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["no/such/file.jsonl", "nothing.txt", "*.nothing", "/no/such/folder", "./nothing"])
def test_missing_path_that_is_no_hub_id_names_the_places(name, monkeypatch):
    monkeypatch.setattr(documents, "read_hub_rows", lambda _: pytest.fail("asked the hub"))
    with pytest.raises(StrataError, match=r"was not found: nothing is at .*; correct dataset\.dataset_name"):
        read(name)


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`load_dataset` as it is, but with a folder for a hub repository; gives the calls."""
    repository = tmp_path / "repository"
    repository.mkdir()
    write_parquet(repository / "train-00000-of-00001.parquet", ["a", "b"])
    write_parquet(repository / "test-00000-of-00001.parquet", ["c"])
    calls, load = [], datasets.load_dataset

    def load_dataset(path, **keys):
        calls.append((path, keys))
        return load(
            str(repository), split=keys["split"], streaming=keys["streaming"], cache_dir=str(tmp_path / "cache")
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_hub_dataset_is_streamed_with_the_keys_of_the_config(hub):
    config = dataset(
        "some/corpus", split="train", dataset_config="raw", dataset_data_dir="data/json", dataset_revision="v2"
    )
    assert list(read_documents(config)) == ["a", "b"]
    keys = {"name": "raw", "data_dir": "data/json", "split": "train", "revision": "v2", "streaming": True}
    assert hub == [("some/corpus", keys)]


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_hub_dataset_is_pinned_to_the_commit_that_the_hub_names(monkeypatch):
    asked = []

    def dataset_info(_api, name, *, revision, timeout):
        asked.append((name, revision))
        return SimpleNamespace(sha=COMMIT)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    config = dataset("some/corpus", split="train", dataset_revision="v2")
    assert pin_revision(config) == config.model_copy(update={"dataset_revision": COMMIT})
    assert asked == [("some/corpus", "v2")]


def test_hub_dataset_is_pinned_to_the_cached_commit_where_the_hub_is_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "datasets--some--corpus"
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert pin_revision(dataset("some/corpus")).dataset_revision == COMMIT
    for unknown in (dataset("some/other"), dataset("some/corpus", dataset_revision="v2")):
        assert pin_revision(unknown) == unknown


def test_hub_dataset_without_the_column(hub):
    with pytest.raises(StrataError, match=r"dataset 'some/corpus': no column 'content'; .*: text, n$"):
        read("some/corpus", "content", split="train")


def test_hub_dataset_without_a_split(hub):
    with pytest.raises(StrataError, match=r"has several splits: set dataset\.dataset_split to one of .*test"):
        read("some/corpus")


def test_hub_dataset_with_an_unknown_split(hub):
    with pytest.raises(StrataError, match=r"dataset 'some/corpus' on the hub: Bad split: trian\. Available splits"):
        read("some/corpus", split="trian")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'testbed/corpsu' on the Hub (LocalEntryNotFoundError)"),
        datasets.exceptions.DatasetNotFoundError("Dataset 'testbed/corpsu' doesn't exist on the Hub."),
    ],
)
def test_what_is_neither_local_nor_on_the_hub_names_both_readings(error, monkeypatch):
    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(StrataError) as caught:
        read("testbed/corpsu", split="train")
    message = str(caught.value)
    assert "'testbed/corpsu' is neither a local path nor readable from the hub" in message
    assert str(files.REPOSITORY / "testbed/corpsu") in message
    assert str(error).rstrip(".") in message
