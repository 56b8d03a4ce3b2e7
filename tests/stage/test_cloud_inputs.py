"""Files that measure_topology.py reads: labels of words, prompts, clouds; and words as tokens."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from src.errors import StrataError
from src.stage.topology.cloud_files import find_cloud_files, read_clouds, read_point_names
from src.stage.topology.labels import read_labels
from src.stage.topology.prompts import read_prompts, tokenize_prompts
from src.text import Keep
from src.text.word_tokens import label_tokens
from tests.fixtures.tiny_project import tiny_tokenizer

LABELS = {"mon": "early", "tue": "early", "sun": "late"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(LABELS)),
        ("b.json", json.dumps({"early": ["mon", "tue"], "late": ["sun"]})),
        ("c.yaml", "mon: early\ntue: early\nsun: late\n"),
        ("d.csv", "mon,early\ntue,early\nsun,late\n"),
        ("e.csv", "token,label\nmon,early\n\ntue,early\nsun,late\n"),
    ],
)
def test_labels_in_every_format_keep_their_order(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert list(read_labels(path).items()) == list(LABELS.items())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "mon early", "a file of labels ends in .json"),
        ("a.json", "[1, 2]", "is no mapping"),
        ("a.json", "{", "can't be read"),
        ("a.yaml", "a: {b: c}\nd: e", "which is no label and no list of words"),
        ("a.csv", "mon,early,1\n", "row 1 has 3 columns"),
        ("a.csv", "mon,early\nmon,late\n", "'mon' has two labels, 'early' and 'late'"),
        ("a.csv", "mon,early\ntue,early\n", "has 1 label: two or more are needed"),
    ],
)
def test_files_that_are_no_labels(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(StrataError, match=message):
        read_labels(path)


def test_words_are_tokens_with_and_without_a_space():
    tokenizer = tiny_tokenizer()
    assert label_tokens(tokenizer, {"w9": "low", "w5": "high"}) == ((9, "low"), (5, "high"))
    with pytest.raises(StrataError, match="'monday' is no single token of this tokenizer: it is unknown to it"):
        label_tokens(tokenizer, {"monday": "x"})
    with pytest.raises(StrataError, match=r"'w9 w5' is no single token of this tokenizer: it is 2 tokens"):
        label_tokens(tokenizer, {"w9 w5": "x"})


def test_prompts_as_lines_and_as_objects(tmp_path):
    (tmp_path / "a.txt").write_text("w5 w6\n\nw7\n")
    (tmp_path / "b.jsonl").write_text('"w5 w6"\n{"text": "w7"}\n')
    (tmp_path / "c.jsonl").write_text('{"prompt": "w5 w6", "label": 1}\n{"prompt": "w7", "label": 2}\n')
    for name, labels in (("a.txt", None), ("b.jsonl", None), ("c.jsonl", ["1", "2"])):
        sequences, found = tokenize_prompts(read_prompts(tmp_path / name, False), tiny_tokenizer(), 8)
        assert [sequence.token_ids.tolist() for sequence in sequences] == [[1, 5, 6], [1, 7]]
        assert [sequence.roles[0] for sequence in sequences] == [Keep.BOS, Keep.BOS]
        assert found == labels


def test_a_chat_template_makes_messages_of_texts(tmp_path):
    (tmp_path / "a.txt").write_text("w5 w6\n")
    assert read_prompts(tmp_path / "a.txt", True).documents == [[{"role": "user", "content": "w5 w6"}]]
    chats = [{"messages": [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]}]
    (tmp_path / "b.jsonl").write_text(json.dumps(chats[0]) + "\n")
    assert read_prompts(tmp_path / "b.jsonl", True).documents == [chats[0]["messages"]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.md", "w5", "prompts stand in .txt"),
        ("a.txt", "\n\n", "holds no prompt"),
        ("a.jsonl", "{\n", "a.jsonl:1 is no JSON"),
        ("a.jsonl", '"w5"\n{"question": "w6"}\n', "a.jsonl:2 is no prompt"),
        ("a.jsonl", '{"text": "w5", "label": [1]}\n', "label .1. is no word and no number"),
        ("a.jsonl", '{"text": "w5", "label": "x"}\n{"text": "w6"}\n', "1 of 2 prompts have a label"),
    ],
)
def test_files_that_are_no_prompts(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(StrataError, match=message):
        read_prompts(path, False)


def test_clouds_are_named_after_files_and_arrays(tmp_path):
    points = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "a.npy", points)
    np.savez(tmp_path / "b.npz", one=points, two=points.astype(np.int64))
    save_file({"only": points.astype(np.float16)}, tmp_path / "c.safetensors")
    paths = find_cloud_files([str(tmp_path / "*.np[yz]"), str(tmp_path / "c.safetensors")])
    clouds = read_clouds(paths)
    assert {name: cloud.dtype.name for name, cloud in clouds.items()} == {
        "a": "float64",
        "b/one": "float64",
        "b/two": "float32",
        "c": "float32",
    }
    for cloud in clouds.values():
        np.testing.assert_array_equal(cloud, points)
    (tmp_path / "names.txt").write_text("p\nq\nr\ns\n")
    assert read_point_names(tmp_path / "names.txt", clouds) == ["p", "q", "r", "s"]
    (tmp_path / "names.txt").write_text("p\nq\n")
    with pytest.raises(StrataError, match="has 2 lines, and a has 4 rows"):
        read_point_names(tmp_path / "names.txt", clouds)


def test_two_clouds_of_one_name_and_damaged_files(tmp_path):
    (tmp_path / "x").mkdir()
    for place in (tmp_path / "a.npy", tmp_path / "x" / "a.npy"):
        np.save(place, np.eye(3))
    with pytest.raises(StrataError, match="two clouds are called a"):
        read_clouds([tmp_path / "a.npy", tmp_path / "x" / "a.npy"])
    (tmp_path / "b.npz").write_bytes(b"PK no zip")
    with pytest.raises(StrataError, match="can't be read"):
        read_clouds([tmp_path / "b.npz"])
    np.savez(tmp_path / "c.npz", good=np.eye(3), bad=np.eye(2))
    with pytest.raises(StrataError, match=r"c.npz \(c/bad\): a cloud needs 3 or more points"):
        read_clouds([tmp_path / "c.npz"])
