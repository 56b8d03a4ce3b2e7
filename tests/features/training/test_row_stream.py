"""The shuffled stream of rows that SAEs are trained on."""

from itertools import islice

import numpy as np
import pytest
import torch

from src.errors import StrataError
from src.features.training.row_sources import CountedRows, StoreRows, draw_documents
from src.features.training.row_stream import ShuffledRows
from src.hook_points import HookPoint
from src.text import Keep
from tests.fixtures.stores import make_store

A, B = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
LENGTHS = [5, 3, 8, 2, 7, 4, 6, 5, 9, 3, 4, 6]


class Numbered:
    """Row i of the whole source is the number i at point A, and -i at point B."""

    points = (A, B)

    def __init__(self, counts):
        self.counts = np.array(counts)
        self.reads = []

    def read(self, chunk):
        self.reads.append(chunk)
        start = self.counts[:chunk].sum()
        rows = torch.arange(start, start + self.counts[chunk]).float()[:, None]
        return CountedRows({A: rows, B: -rows}, torch.zeros(len(rows), dtype=torch.long))

    def sequences(self):
        return []


def values(batch):
    assert torch.equal(batch[A], -batch[B])
    return batch[A][:, 0].int().tolist()


def test_an_epoch_gives_every_row_at_most_once_and_nearly_all():
    source = Numbered([7, 0, 13, 20, 5, 11, 9, 30, 1, 4])  # 100 rows
    stream = ShuffledRows(source, batch_size=4, buffer_rows=30, seed=3)
    epoch = [row for batch in islice(stream.batches(), 22) for row in values(batch)]
    assert len(epoch) == len(set(epoch)) == 88
    assert epoch != sorted(epoch)


def test_rows_of_several_chunks_are_mixed_and_every_epoch_has_another_order():
    stream = ShuffledRows(Numbered([10] * 10), batch_size=10, buffer_rows=100, seed=0)
    batches = [values(batch) for batch in islice(stream.batches(), 20)]
    assert all(len({row // 10 for row in batch}) > 3 for batch in batches)
    for epoch in (batches[:10], batches[10:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(100))
    assert batches[:10] != batches[10:]


def test_the_stream_depends_on_the_seed_alone_and_starts_at_any_step():
    counts = [7, 13, 20, 5, 11, 9, 30]
    whole = [values(batch) for batch in islice(ShuffledRows(Numbered(counts), 4, 25, seed=1).batches(), 70)]
    for start in (0, 1, 5, 22, 23, 24, 47, 69):
        rest = ShuffledRows(Numbered(counts), 4, 25, seed=1).batches(start)
        assert [values(batch) for batch in islice(rest, 70 - start)] == whole[start:]
    assert whole != [values(batch) for batch in islice(ShuffledRows(Numbered(counts), 4, 25, seed=2).batches(), 70)]


def test_going_on_reads_no_more_than_the_block_under_way():
    source = Numbered([10] * 20)
    stream = ShuffledRows(source, batch_size=5, buffer_rows=40, seed=0)
    next(stream.batches(start=39))
    assert len(source.reads) <= 5


def test_too_few_rows_for_a_step_are_refused():
    with pytest.raises(StrataError, match=r"^9 counted tokens to train on are not enough for a step of batch_size=10"):
        ShuffledRows(Numbered([4, 5]), 10, 20, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    n = sum(LENGTHS)
    draws = np.random.default_rng(0)
    keep = np.where(draws.random(n) < 0.3, Keep.BOS, Keep.COUNTED).astype(np.uint8)
    rows = {point: draws.standard_normal((n, 4)).astype(np.float32) for point in (A, B)}
    return make_store(tmp_path_factory.mktemp("store"), rows, LENGTHS, keep, sequences_per_part=3), rows, keep


def test_a_store_gives_the_counted_rows_of_the_chosen_sequences_and_their_tokens(store):
    made, rows, keep = store
    chosen = np.arange(len(LENGTHS)) % 3 != 1
    documents = np.arange(len(LENGTHS)) + 100
    source = StoreRows(made, [A, B], chosen, documents)
    sequence = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    wanted = (keep == Keep.COUNTED) & chosen[sequence]
    chunks = [source.read(chunk) for chunk in range(len(source.counts))]
    assert source.counts.tolist() == [len(chunk.document) for chunk in chunks]
    for point in (A, B):
        assert np.array_equal(torch.cat([chunk.activations[point] for chunk in chunks]), rows[point][wanted])
    assert np.array_equal(torch.cat([chunk.document for chunk in chunks]), documents[sequence[wanted]])
    sequences = source.sequences()
    assert [it.document for it in sequences] == documents[chosen].tolist()
    assert [len(it.token_ids) for it in sequences] == np.array(LENGTHS)[chosen].tolist()
    assert np.array_equal(np.concatenate([it.roles for it in sequences]), keep[chosen[sequence]])


def test_held_out_documents_are_drawn_whole_until_they_suffice():
    documents = np.repeat(np.arange(40), 3)
    counted = np.full(120, 5)
    candidates = documents % 2 == 0
    drawn = draw_documents(candidates, documents, counted, n_tokens=100, seed=0)
    assert counted[drawn].sum() == 105  # 7 documents of 15 tokens
    assert not (drawn & ~candidates).any()
    assert all(drawn[documents == document].all() for document in set(documents[drawn]))
    assert set(documents[drawn]) != set(documents[draw_documents(candidates, documents, counted, 100, seed=1)])
    assert np.array_equal(draw_documents(candidates, documents, counted, 10**6, seed=0), candidates)
    with pytest.raises(StrataError, match="no held-out document has a counted token"):
        draw_documents(candidates, documents, np.zeros(120, int), 100, seed=0)
