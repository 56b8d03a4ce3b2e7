import numpy as np

from src.text import SeenText, Selection, TokenSequence


def sequence(*ids: int) -> TokenSequence:
    return TokenSequence(0, np.array(ids, np.int32), np.zeros(len(ids), np.uint8))


def test_what_begins_like_seen_text_is_passed_over_as_far_as_both_go():
    seen = SeenText.of([np.array([1, 2, 3, 4], np.int32), np.array([7], np.int32)], n_tokens=3)
    assert sequence(1, 2, 3, 9, 9) in seen
    assert sequence(1, 2, 3) in seen
    assert sequence(1, 2) not in seen
    assert sequence(7, 2) not in seen
    assert sequence(7) in seen


def test_a_selection_counts_what_it_passes_over_and_stops_when_it_has_enough():
    drawn = []

    def text():
        for each in (sequence(1, 2, 3), sequence(5), sequence(4, 4), sequence(6, 6, 6), sequence(8, 8)):
            drawn.append(each)
            yield each

    selection = Selection(2, (SeenText.of([np.array([1, 2, 3], np.int32)], 8),), at_most=2)
    assert [each.token_ids.tolist() for each in selection.select(text())] == [[4, 4], [6, 6, 6]]
    assert (selection.n_seen, selection.n_short, selection.longest) == (1, 1, 1)
    assert len(drawn) == 4
