"""Clouds: the chosen tokens, mask-aware, from a store and from a model alike."""

from functools import partial

import numpy as np
import pytest
import torch

from src.activations.clouds import clouds_of_model, clouds_of_store
from src.activations.token_choice import TokenChoice, choose_tokens, sequence_tokens, store_tokens
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import capture, wrap_model
from src.text import Keep, TokenSequence
from tests.fixtures.stores import make_store
from tests.fixtures.tiny_models import D_MODEL, N_VOCAB, model_config, tiny_model

LENGTHS = [5, 1, 4, 7, 3, 6]
N_TOKENS = sum(LENGTHS)
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
POINTS = [HookPoint("resid_post", 0), HookPoint("resid_pre", 1)]


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N_TOKENS, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def keep() -> np.ndarray:
    """BOS everywhere; the last token of sequence 0 a special one; sequence 1 is BOS alone; a sink in sequence 3."""
    keep = np.zeros(N_TOKENS, np.uint8)
    keep[STARTS] = Keep.BOS
    keep[STARTS[0] + 4] = Keep.SPECIAL
    keep[STARTS[3] + 3] = Keep.SINK
    return keep


@pytest.fixture(scope="module")
def store(tmp_path_factory, rows, keep):
    folder = tmp_path_factory.mktemp("clouds")
    return make_store(folder, {POINTS[0]: rows, POINTS[1]: 2 * rows}, LENGTHS, keep, sequences_per_part=4)


def cloud(store, choice: TokenChoice) -> np.ndarray:
    found = clouds_of_store(store, POINTS, choose_tokens(partial(store_tokens, store), choice))
    np.testing.assert_array_equal(found[POINTS[1]], 2 * found[POINTS[0]])
    return found[POINTS[0]]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (TokenChoice("last"), STARTS[[0, 2, 3, 4, 5]] + np.array([3, 3, 6, 2, 5])),
        (TokenChoice("first"), STARTS[[0, 2, 3, 4, 5]] + 1),
        (TokenChoice("cls"), STARTS),
        (TokenChoice("index", index=2), STARTS[[0, 2, 3, 5]] + np.array([3, 3, 4, 3])),
        (TokenChoice("index", index=-3), STARTS[[0, 2, 3, 5]] + np.array([1, 1, 4, 3])),
    ],
)
def test_one_token_of_each_sequence_is_a_counted_one(store, rows, choice, expected):
    np.testing.assert_array_equal(cloud(store, choice), rows[expected])


def test_pooling_is_over_counted_tokens_alone(store, rows, keep):
    counted = [np.flatnonzero(keep[start : start + n] == 0) + start for start, n in zip(STARTS, LENGTHS, strict=True)]
    counted = [some for some in counted if len(some)]
    means = np.stack([rows[some].mean(axis=0) for some in counted])
    np.testing.assert_allclose(cloud(store, TokenChoice("mean")), means, atol=1e-6)
    np.testing.assert_array_equal(
        cloud(store, TokenChoice("max")), np.stack([rows[some].max(axis=0) for some in counted])
    )


def test_all_tokens_and_a_draw_of_them_in_the_order_of_the_text(store, rows, keep):
    everything = rows[keep == 0]
    np.testing.assert_array_equal(cloud(store, TokenChoice("all")), everything)
    some = choose_tokens(partial(store_tokens, store), TokenChoice("all", n_points=7, seed=3))
    again = choose_tokens(partial(store_tokens, store), TokenChoice("all", n_points=7, seed=3))
    other = choose_tokens(partial(store_tokens, store), TokenChoice("all", n_points=7, seed=4))
    place = STARTS[some.sequence] + some.position
    assert (np.diff(place) > 0).all()
    assert (keep[place] == 0).all()
    np.testing.assert_array_equal(clouds_of_store(store, POINTS[:1], some)[POINTS[0]], rows[place])
    np.testing.assert_array_equal(some.position, again.position)
    assert not np.array_equal(STARTS[other.sequence] + other.position, place)


def labelled(store, keep, **keys) -> tuple[TokenChoice, np.ndarray]:
    """A choice in which tokens with an odd id are odd, others even; and the ids of the store."""
    ids = np.concatenate([part.token_ids for part in store])
    labels = tuple((token, "odd" if token % 2 else "even") for token in sorted(ids[keep == 0].tolist()))
    return TokenChoice("label", labels=labels, **keys), ids


def test_labelled_tokens_are_drawn_in_equal_numbers(store, rows, keep):
    choice, ids = labelled(store, keep, n_points=7)
    chosen = choose_tokens(partial(store_tokens, store), choice)
    assert sorted(chosen.labels) == ["even", "odd"]
    assert np.bincount(chosen.label).tolist() == [3, 3]
    names = np.array(chosen.labels)[chosen.label]
    assert [("even", "odd")[token % 2] for token in chosen.token_id] == names.tolist()
    place = STARTS[chosen.sequence] + chosen.position
    np.testing.assert_array_equal(ids[place], chosen.token_id)
    np.testing.assert_array_equal(clouds_of_store(store, POINTS[:1], chosen)[POINTS[0]], rows[place])
    assert [context[-1] for context in chosen.context] == chosen.token_id.tolist()
    assert [len(context) for context in chosen.context] == (chosen.position + 1).tolist()


def test_points_are_means_over_contexts_of_one_label(store, rows, keep):
    choice, _ = labelled(store, keep, contexts=3)
    chosen = choose_tokens(partial(store_tokens, store), choice)
    found = clouds_of_store(store, POINTS[:1], chosen)[POINTS[0]]
    place = (STARTS[chosen.sequence] + chosen.position).reshape(-1, 3)
    assert len(set(place.ravel().tolist())) == place.size, "no token serves twice"
    np.testing.assert_allclose(found, rows[place].mean(axis=1), atol=1e-6)
    assert (chosen.token_id.reshape(-1, 3) % 2 == chosen.token_id.reshape(-1, 3)[:, :1] % 2).all()
    assert len(chosen.context) == len(found) == chosen.n_points


def test_one_point_of_all_contexts_of_each_label(store, rows, keep):
    choice, ids = labelled(store, keep, contexts=None)
    chosen = choose_tokens(partial(store_tokens, store), choice)
    found = clouds_of_store(store, POINTS[:1], chosen)[POINTS[0]]
    of_label = [(ids % 2 == ("even", "odd").index(name)) & (keep == 0) for name in chosen.labels]
    np.testing.assert_allclose(found, np.stack([rows[which].mean(axis=0) for which in of_label]), atol=1e-6)
    assert chosen.label.tolist() == [0, 1]
    assert [context[-1] for context in chosen.context] == [int(ids[which][0]) for which in of_label]


def test_labels_of_whole_sequences(store, rows):
    words = ["a", "b", "a", "b", "a", "b"]
    chosen = choose_tokens(partial(store_tokens, store), TokenChoice("last"), words)
    assert [chosen.labels[label] for label in chosen.label] == [words[sequence] for sequence in chosen.sequence]
    pairs = choose_tokens(partial(store_tokens, store), TokenChoice("last", contexts=2), words)
    assert [{words[s] for s in pairs.sequence[pairs.point == point]} for point in range(2)] == [{"a"}, {"b"}]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (TokenChoice("index", index=50), "tokens=index: of the counted tokens none fits"),
        (TokenChoice("last", contexts=6), "only 5 fit; contexts=6 needs more"),
        (TokenChoice("label", labels=((1, "x"), (2, "y"))), "'x', 'y' never occurs"),
        (TokenChoice("label", labels=((1, "x"), (2, "y")), contexts=4), r"too few of 'x' \(0\), 'y' \(0\)"),
    ],
)
def test_what_is_not_there_is_named(store, choice, message):
    with pytest.raises(StrataError, match=message):
        choose_tokens(partial(store_tokens, store), choice)


def test_fewer_points_than_labels(store, keep):
    choice, _ = labelled(store, keep, n_points=1)
    with pytest.raises(StrataError, match="n_points=1 is less than one for each of 2 labels"):
        choose_tokens(partial(store_tokens, store), choice)


def test_a_hook_point_that_was_not_collected(store):
    chosen = choose_tokens(partial(store_tokens, store), TokenChoice("last"))
    with pytest.raises(StrataError, match=r"has no mlp_out\.0"):
        clouds_of_store(store, [HookPoint("mlp_out", 0)], chosen)


def test_points_that_are_not_finite(tmp_path, rows):
    bad = rows.copy()
    bad[STARTS[2] + 2] = np.inf
    store = make_store(tmp_path, {POINTS[0]: bad}, LENGTHS)
    chosen = choose_tokens(partial(store_tokens, store), TokenChoice("all"))
    with pytest.raises(StrataError, match=rf"1 of {N_TOKENS} points of resid_post\.0 are not finite"):
        clouds_of_store(store, POINTS[:1], chosen)


def some_sequences() -> list[TokenSequence]:
    draws = np.random.default_rng(2)
    found = []
    for index, length in enumerate([9, 2, 5, 12, 7, 3, 12]):
        roles = np.zeros(length, np.uint8)
        roles[0] = Keep.BOS
        found.append(TokenSequence(index, draws.integers(3, N_VOCAB, length).astype(np.int32), roles))
    return found


@pytest.fixture(scope="module")
def gpt2():
    """Learned positions: padding on the left would move every token."""
    return wrap_model(tiny_model("gpt2"), model_config())


@pytest.mark.parametrize("choice", [TokenChoice("last"), TokenChoice("mean"), TokenChoice("max"), TokenChoice("all")])
def test_a_model_gives_the_same_clouds_whatever_the_batch(gpt2, choice):
    sequences = some_sequences()
    points = [HookPoint("resid_post", layer) for layer in range(3)] + [HookPoint("mlp_out", 1)]
    chosen = choose_tokens(partial(sequence_tokens, sequences), choice)
    alone, batched, all_at_once = (clouds_of_model(gpt2, sequences, points, chosen, size) for size in (1, 3, 8))
    for point in points:
        assert alone[point].dtype == np.float32
        assert alone[point].shape == (chosen.n_points, D_MODEL)
        np.testing.assert_allclose(batched[point], alone[point], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(all_at_once[point], alone[point], rtol=1e-4, atol=1e-5)


def test_a_model_gives_what_one_sequence_alone_gives(gpt2):
    sequences = some_sequences()
    point = HookPoint("resid_post", 2)
    chosen = choose_tokens(partial(sequence_tokens, sequences), TokenChoice("index", index=1))
    found = clouds_of_model(gpt2, sequences, [point], chosen, batch_size=4)[point]
    kept = [sequence for sequence in sequences if len(sequence.token_ids) > 2]
    for row, sequence in zip(found, kept, strict=True):
        ids = torch.from_numpy(sequence.token_ids).long()[None]
        expected = capture(gpt2, ids, torch.ones_like(ids), [point])[point][0, 2]
        np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_half_precision_is_pooled_in_more(gpt2):
    half = wrap_model(tiny_model("gpt2").bfloat16(), model_config())
    sequences, point = some_sequences(), HookPoint("resid_post", 1)
    chosen = choose_tokens(partial(sequence_tokens, sequences), TokenChoice("mean"))
    found = clouds_of_model(half, sequences, [point], chosen, batch_size=1)[point]
    for row, sequence in zip(found, sequences, strict=True):
        ids = torch.from_numpy(sequence.token_ids).long()[None]
        states = capture(half, ids, torch.ones_like(ids), [point])[point][0, 1:]
        np.testing.assert_allclose(row, states.double().mean(0).numpy(), rtol=1e-6, atol=1e-7)
