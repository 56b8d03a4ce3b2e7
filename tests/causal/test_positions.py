import numpy as np
import pytest

from src.causal.positions import position_text, reached_positions, with_sources

# sequences of 6, 3 and 1 tokens whose first token may not be edited
EDITABLE = [np.arange(length) > 0 for length in (6, 3, 1)]


@pytest.mark.parametrize(
    ("positions", "text"), [(None, "all"), ((4,), "4"), ((1, 2, 3), "1-3"), ((0, 2, 3, 9), "0,2-3,9")]
)
def test_positions_are_told_in_runs(positions, text):
    assert position_text(positions) == text


def test_a_position_counts_where_an_edit_can_change_a_prediction():
    """Position 5 is the last of the longest sequence, and position 0 may not be edited."""
    assert reached_positions([(0, 1), (4,), (5,), (1, 5), None, (9,)], EDITABLE) == ([(1,), (4,), None], [0, 5, 9])
    assert reached_positions([None], EDITABLE[2:]) == ([], [])


def test_a_token_counts_where_its_source_does_too():
    flags = np.array([False, True, True, False, True])
    assert with_sources(flags, {0}).tolist() == flags.tolist()
    assert with_sources(flags, {1}).tolist() == [False, False, True, False, False]
    assert with_sources(flags, {0, -1}).tolist() == [False, True, False, False, False]
    assert with_sources(flags[:1], {3}).tolist() == [False]
