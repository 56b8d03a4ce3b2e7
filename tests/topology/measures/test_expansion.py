import numpy as np
import pytest

from src.errors import StrataError
from src.topology.measures.expansion import expansion


def test_the_ratio_stands_beside_its_controls():
    found = expansion([0.2, 0.5, 0.8, 0.4], [[0.1, 0.2, 0.2, 0.1], [0.5, 0.5, 1.0, 4.0]])
    np.testing.assert_allclose(found.over_first, [1, 2.5, 4, 2])
    assert (found.ratio, found.peak) == (pytest.approx(4), 2)
    np.testing.assert_allclose(found.of_controls, [2, 8])
    assert found.over_controls == pytest.approx(4 / 4)  # the geometric mean of 2 and 8
    assert found.p == pytest.approx(2 / 3)


def test_a_ratio_above_all_controls_has_the_least_p():
    found = expansion([1.0, 9.0], [[1.0, 2.0]] * 19)
    assert found.p == 0.05
    assert found.over_controls == pytest.approx(4.5)


def test_there_is_no_ratio_without_a_control():
    with pytest.raises(StrataError, match="randomly initialised"):
        expansion([0.1, 0.2], [])


def test_layers_must_be_the_same():
    with pytest.raises(StrataError, match=r"there are \[2, 3\]"):
        expansion([0.1, 0.2], [[0.1, 0.2, 0.3]])


@pytest.mark.parametrize("first", [0.0, float("nan")])
def test_an_embedding_of_one_token_has_no_ratio(first):
    with pytest.raises(StrataError, match="choose other tokens"):
        expansion([first, 0.2], [[0.1, 0.2]])
