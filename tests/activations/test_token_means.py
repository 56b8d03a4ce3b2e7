import numpy as np
import pytest
import torch

from src.activations.store import open_store
from src.activations.token_means import token_means
from src.errors import StrataError
from src.hook_points import HookPoint
from src.text import Keep
from tests.fixtures.tiny_project import make_project


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("means"), n_documents=30)
    project.collect()
    return open_store(project.store())


@pytest.mark.parametrize("at_least", [1, 4])
def test_means_are_those_of_a_loop_over_tokens(store, at_least):
    point = HookPoint("resid_post", 1)
    states: dict[int, list[np.ndarray]] = {}
    for part in store:
        values = part.activations(point).double().numpy()
        for token, keep, row in zip(part.token_ids.tolist(), part.keep.tolist(), values, strict=True):
            if keep == Keep.COUNTED:
                states.setdefault(token, []).append(row)
    expected = {token: np.mean(rows, axis=0) for token, rows in sorted(states.items()) if len(rows) >= at_least}
    ids, means = token_means(store, point, at_least)
    assert ids.tolist() == list(expected)
    assert 1 not in expected, "BOS is not counted"
    torch.testing.assert_close(means, torch.from_numpy(np.array(list(expected.values()))))


def test_a_layer_that_was_not_collected_is_refused(store):
    with pytest.raises(StrataError, match=r"has no mlp_out\.1"):
        token_means(store, HookPoint("mlp_out", 1))
