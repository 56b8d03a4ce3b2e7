"""Which rows of a run are looked at, and where their keys stand."""

import pytest
import torch

from src.errors import StrataError
from src.scenarios.attended_places import places_of_keys
from src.scenarios.lenses.items import captured_position, message_items, step_items
from tests.fixtures.scenario_runs import random_conversation

FIRST, SECOND = random_conversation().runs()


def test_steps_are_those_of_the_run_and_say_what_they_chose():
    items = step_items(SECOND, [2, 0])
    assert (items.numbers, items.n_keys, items.targets, items.messages_read) == ([2, 0], [11, 9], [7, 7], [2, 2])
    expected = SECOND.generation.rows.get("resid_post")[1:, [2, 0]]
    assert torch.equal(items.get("resid_post", [1, 2]), expected)
    assert items.get("logits").shape == (1, 2, 11)
    with pytest.raises(StrataError, match=r"prompt_0_msg2of2 has steps 0 to 2, not 3, 9"):
        step_items(SECOND, [3, 1, 9])


def test_messages_of_a_run_are_its_own_and_its_reply():
    items = message_items(FIRST, "end")
    assert (items.numbers, items.words, items.n_keys) == ([0, 1], ["system", "assistant"], [3, 10])
    rows = FIRST.conversation.snapshot_rows.get("attn_out")
    assert torch.equal(items.get("attn_out"), rows[:, [0, 4]])
    answers = message_items(SECOND, "answer")
    assert (answers.numbers, answers.messages_read, answers.n_keys) == ([0, 1, 2], [1, 2, 2], [5, 9, 15])
    assert answers.words == ["system", "user", "assistant"]
    assert captured_position(SECOND) == "answer"
    with pytest.raises(StrataError, match=r"position=mean .* \(there are end, answer\).*capture.positions=\[mean\]"):
        message_items(SECOND, "mean")


def test_keys_stand_in_the_first_token_in_messages_that_were_read_or_in_the_rest():
    found = places_of_keys([2, 6], [1, 2], [5, 9], 10)
    assert found.tolist() == [
        [0, 1, 1, 3, 3, -1, -1, -1, -1, -1],
        [0, 1, 1, 2, 2, 2, 2, 3, 3, -1],
    ]
    assert places_of_keys([], [0], [3], 4).tolist() == [[0, 1, 1, -1]]
