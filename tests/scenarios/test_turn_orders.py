"""Conversations with their turns in random orders."""

import pytest

from src.scenarios.capturing.capture import readings_of
from src.scenarios.scenario import Prompt
from tests.fixtures.tiny_chats import talk

SAID = talk("a", "A", "b", "B", "c", "C", "d")


def texts(messages):
    return [message.content for message in messages]


def test_turns_move_and_opening_and_open_end_stay():
    prompt = Prompt(messages=SAID, orders=4, run_at_each_message=True)
    first, *others = readings_of(prompt, "p", 0)
    assert (first.name, first.prompt, first.order, first.generate) == ("p", prompt, None, True)
    assert [reading.name for reading in others] == [f"p_order_{n}" for n in range(1, 5)]
    assert len({tuple(reading.order) for reading in others}) == 4
    for reading in others:
        assert not reading.generate
        assert not reading.prompt.run_at_each_message
        assert sorted(reading.order[:3]) == [0, 1, 2]
        assert reading.order != [0, 1, 2, 3]
        said = [text for turn in reading.order[:3] for text in (["a", "A"], ["b", "B"], ["c", "C"])[turn]]
        assert texts(reading.prompt.messages) == ["w1 w2", *said, "d"]


def test_orders_follow_from_seed_and_name():
    prompt = Prompt(messages=talk(*"abcdefghijkl"), orders=3)
    again = [reading.order for reading in readings_of(prompt, "p", 1)]
    assert [reading.order for reading in readings_of(prompt, "p", 1)] == again
    assert [reading.order for reading in readings_of(prompt, "p", 2)] != again
    assert [reading.order for reading in readings_of(prompt, "q", 1)] != again


@pytest.mark.parametrize(("messages", "expected"), [(SAID[:3], 1), (SAID[:5], 2), (SAID, 6)])
def test_there_are_no_more_orders_than_there_are(messages, expected):
    assert len(readings_of(Prompt(messages=messages, orders=50), "p", 0)) == expected
