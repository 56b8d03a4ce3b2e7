import contextlib
import itertools
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import StrataError
from src.text import (
    DocumentCounts,
    Keep,
    SequenceTable,
    TokenSequence,
    content_hashes,
    table,
    tokenize_documents,
    write_sequence_table,
)


def sequence(document, token_ids, roles=None):
    roles = np.zeros(len(token_ids)) if roles is None else roles
    return TokenSequence(document, np.array(token_ids, np.int32), np.array(roles, np.uint8))


def as_lists(sequences):
    return [(s.document, s.token_ids.tolist(), s.roles.tolist()) for s in sequences]


codes = st.sampled_from([Keep.COUNTED, Keep.BOS, Keep.SPECIAL, Keep.FIRST])
tokens = st.lists(st.tuples(st.integers(0, 2**31 - 1), codes), min_size=1, max_size=9)
sequence_lists = st.lists(tokens, min_size=1, max_size=25).map(
    lambda rows: [sequence(3 * i, *map(list, zip(*row, strict=True))) for i, row in enumerate(rows)]
)


@given(sequences=sequence_lists, row_group_tokens=st.integers(1, 40), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_range_reads_back_what_was_written(tmp_path_factory, sequences, row_group_tokens, data):
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "ROW_GROUP_TOKENS", row_group_tokens)
        summary = write_sequence_table(folder, iter(sequences), DocumentCounts(read=len(sequences)), "corpus")
    opened = SequenceTable(folder)
    start = data.draw(st.integers(0, len(sequences)))
    stop = data.draw(st.integers(start, len(sequences)))

    assert as_lists(opened.read(start, stop)) == as_lists(sequences[start:stop])
    assert opened.lengths.tolist() == [len(s.token_ids) for s in sequences]
    assert opened.offsets.tolist() == [0, *np.cumsum(opened.lengths)]
    assert (opened.n_sequences, opened.n_tokens) == (len(sequences), sum(opened.lengths))
    assert (summary.sequences, summary.tokens) == (opened.n_sequences, opened.n_tokens)
    all_roles = np.concatenate([s.roles for s in sequences])
    assert summary.tokens_by_role == {role.name.lower(): n for role in Keep if (n := int((all_roles == role).sum()))}
    # row groups are no larger than asked for, but for a sequence that is larger alone
    metadata = pq.ParquetFile(opened.path).metadata
    edges = np.cumsum([0] + [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)])
    for first, last in itertools.pairwise(edges):
        assert last == first + 1 or opened.offsets[last] - opened.offsets[first] <= row_group_tokens


def test_read_arrays_can_be_written_to(tmp_path):
    write_sequence_table(tmp_path, [sequence(0, [1, 2])], DocumentCounts(read=1), "corpus")
    (read,) = SequenceTable(tmp_path).read(0, 1)
    assert (read.token_ids.dtype, read.roles.dtype) == (np.int32, np.uint8)
    read.token_ids[0] = 7
    read.roles[0] = Keep.SINK


def test_writing_is_reproducible_to_the_byte(tmp_path):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sequences = (sequence(i, range(i + 1)) for i in range(50))
        write_sequence_table(tmp_path / name, sequences, DocumentCounts(read=50), "corpus")
        contents.append((tmp_path / name / table.FILE_NAME).read_bytes())
    assert contents[0] == contents[1]


def test_memory_does_not_grow_with_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "ROW_GROUP_TOKENS", 20_000)
    peaks = []
    for n in (200, 1600):
        tracemalloc.start()
        sequences = (sequence(i, np.arange(1000) + i) for i in range(n))
        write_sequence_table(tmp_path, sequences, DocumentCounts(read=n), "corpus")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert pq.ParquetFile(tmp_path / table.FILE_NAME).metadata.num_row_groups == 80


def test_summary_tells_what_became_of_the_documents(tmp_path, tokenizers_by_kind):
    counts = DocumentCounts()
    corpus = ["skipped", "a b <eos>", "", "a b c d e"]
    sequences = tokenize_documents(corpus, tokenizers_by_kind["bos"], 4, skip_documents=1, counts=counts)
    summary = write_sequence_table(tmp_path, sequences, counts, "corpus")
    assert (summary.documents_skipped, summary.documents_read, summary.documents_empty) == (1, 3, 1)
    assert (summary.documents_truncated, summary.sequences, summary.tokens) == (1, 2, 8)
    assert summary.tokens_by_role == {"counted": 5, "bos": 2, "special": 1}


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_hash_depends_on_the_tokens_and_the_seed_alone():
    ids = [np.array(row, np.int32) for row in ([1, 2], [1, 2], [2, 1], [1, 2, 0], [258])]
    first, other = content_hashes(ids, 0), content_hashes(ids, 1)
    assert first.dtype == np.uint64
    assert first[0] == first[1]
    assert len(set(first.tolist())) == 4
    assert not set(first.tolist()) & set(other.tolist())
    assert content_hashes([ids[0].astype(np.int64)[::1]], 0)[0] == first[0]


def test_hash_is_the_same_on_every_machine():
    # a split that was stored must be found again: these numbers may never change
    ids = [np.array([1, 2, 3], np.int32), np.array([50256], np.int32)]
    assert content_hashes(ids, 42).tolist() == [2529333009575993131, 6532437519262231065]


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpus", "skip", "message"),
    [
        (["", " "], 0, r"dataset 'my/corpus' gives no sequence: all 2 documents are empty"),
        (["a", "b"], 9, r"dataset 'my/corpus' gives no sequence: it has only 2 documents.*skip fewer of them"),
        ([], 0, r"dataset 'my/corpus' gives no sequence: it has no documents"),
    ],
)
def test_empty_table_says_why(tmp_path, bos_tokenizer, corpus, skip, message):
    counts = DocumentCounts()
    sequences = tokenize_documents(corpus, bos_tokenizer, 4, skip_documents=skip, counts=counts)
    with pytest.raises(StrataError, match=message):
        write_sequence_table(tmp_path, sequences, counts, "my/corpus")
    assert not list(tmp_path.iterdir())


def test_range_outside_the_table(tmp_path):
    write_sequence_table(tmp_path, [sequence(0, [1])], DocumentCounts(read=1), "corpus")
    for start, stop in ((0, 2), (-1, 1), (1, 0)):
        with pytest.raises(StrataError, match=r"are not within the table's 1"):
            SequenceTable(tmp_path).read(start, stop)


def test_folder_without_a_table(tmp_path):
    with pytest.raises(StrataError, match=r"holds no sequence table: there is no sequences\.parquet"):
        SequenceTable(tmp_path)


def test_broken_table(tmp_path):
    write_sequence_table(tmp_path, [sequence(0, range(100))], DocumentCounts(read=1), "corpus")
    path = tmp_path / table.FILE_NAME
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StrataError, match=r"sequences\.parquet is broken \(.*\): remove the folder"):
        SequenceTable(tmp_path)


def test_damage_in_the_middle(tmp_path, monkeypatch):
    """Pages carry checksums: a flipped bit in them is refused. Anywhere else it may be harmless, but no traceback."""
    monkeypatch.setattr(table, "ROW_GROUP_TOKENS", 400)
    ids = np.random.default_rng(0).integers(0, 50_000, (30, 20))
    sequences = [sequence(i, row) for i, row in enumerate(ids)]
    write_sequence_table(tmp_path, sequences, DocumentCounts(read=30), "corpus")
    path = tmp_path / table.FILE_NAME
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(1).column(2)
    assert (column.path_in_schema, column.total_compressed_size > 600) == ("token_ids.list.element", True)
    start = column.dictionary_page_offset or column.data_page_offset

    def damaged(place):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        return SequenceTable(tmp_path).read(20, 30)

    for place in range(start + 100, start + 400, 6):  # in the first page, behind its header
        with pytest.raises(
            StrataError, match=rf"sequences\.parquet is broken \(.*\): remove the folder {tmp_path} and"
        ):
            damaged(place)
    for place in range(0, len(whole), 11):
        with contextlib.suppress(StrataError):
            damaged(place)


def test_foreign_table(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / table.FILE_NAME)
    with pytest.raises(StrataError, match=r"is no sequence table: its columns are \['text'\]"):
        SequenceTable(tmp_path)
