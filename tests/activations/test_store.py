"""The layout of a store, and reading one part by part."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.activations.store import ActivationStore, StoreLayout
from src.artifacts import Artifact, open_artifact
from src.errors import StrataError
from src.hook_points import HookPoint
from tests.fixtures.stores import make_store

POINTS = (HookPoint("resid_post", 0), HookPoint("resid_post", 2), HookPoint("attn_out", 2))


def layout(n_sequences: int = 10, sequences_per_part: int = 4, storage_dtype: str = "bfloat16") -> StoreLayout:
    return StoreLayout(POINTS, 8, 3, storage_dtype, n_sequences, 5 * n_sequences, sequences_per_part)


@given(n_sequences=st.integers(1, 200), sequences_per_part=st.integers(1, 50))
def test_every_sequence_lies_in_exactly_one_part(n_sequences, sequences_per_part):
    cut = layout(n_sequences, sequences_per_part)
    which = [sequence for part in range(cut.n_parts) for sequence in cut.sequences_of(part)]
    assert which == list(range(n_sequences))
    assert all(0 < len(cut.sequences_of(part)) <= sequences_per_part for part in range(cut.n_parts))


@pytest.mark.parametrize(("storage_dtype", "size"), [("bfloat16", 2), ("float16", 2), ("float32", 4)])
def test_bytes_per_token_count_all_arrays(storage_dtype, size):
    # token id 4, position 4, keep 1
    assert layout(storage_dtype=storage_dtype).bytes_per_token == 3 * 8 * size + 9


def test_a_layout_survives_json():
    assert StoreLayout.from_json(layout().as_json()) == layout()
    assert layout().as_json()["hook_points"] == ["resid_post.0", "resid_post.2", "attn_out.2"]


@pytest.fixture(scope="module")
def rows():
    draws = np.random.default_rng(0)
    return {point: draws.standard_normal((25, 8)).astype(np.float32) for point in POINTS}


@pytest.fixture(scope="module")
def store(tmp_path_factory, rows) -> ActivationStore:
    return make_store(tmp_path_factory.mktemp("artifacts"), rows, [5, 3, 1, 6, 2, 8], sequences_per_part=2)


def test_parts_follow_each_other_in_the_order_of_the_sequences(store, rows):
    parts = list(store)
    assert [part.first_sequence for part in parts] == [0, 2, 4]
    assert (
        np.concatenate([part.sequence for part in parts]).tolist() == np.repeat(range(6), [5, 3, 1, 6, 2, 8]).tolist()
    )
    for point in POINTS:
        found = torch.cat([part.activations(point) for part in parts])
        assert torch.equal(found, torch.from_numpy(rows[point]))


def test_what_a_store_lacks_is_told_with_what_it_holds(store):
    store.require(POINTS)
    with pytest.raises(StrataError) as error:
        store.require([POINTS[0], HookPoint("resid_post", 1), HookPoint("mlp_out", 0)])
    message = str(error.value)
    assert "has no resid_post.1, mlp_out.0" in message
    assert "it holds resid_post of layers [0, 2], attn_out of layers [2] of a model with layers 0..2" in message


def test_a_store_with_a_lost_chunk_is_refused_instead_of_read_as_zeros(tmp_path, rows):
    store = make_store(tmp_path, rows, [5, 3, 1, 6, 2, 8], sequences_per_part=2)
    (store.path / "part-00001.zarr" / "resid_post" / "02" / "c" / "0" / "0").unlink()
    reopened = ActivationStore(open_artifact(store.path, "activations"))
    parts = iter(reopened)
    assert len(next(parts).activations(POINTS[1])) == 8
    with pytest.raises(StrataError, match=r"part-00001.zarr is incomplete"):
        next(parts)


def test_parts_of_another_store_are_refused(tmp_path, store):
    foreign = replace(store.artifact.meta, fingerprint="0" * 64)
    with pytest.raises(StrataError, match=r"part-00000.zarr is incomplete"):
        next(iter(ActivationStore(Artifact(store.path, foreign))))
