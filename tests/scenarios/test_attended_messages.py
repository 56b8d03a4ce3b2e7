"""Attention summed over messages, against sums by hand."""

import pytest
import torch

from src.scenarios.comparing.attended_messages import attended_messages
from tests.fixtures.made_scenarios import ScenarioMaker


def test_shares_are_the_sums_over_the_tokens_of_each_message():
    maker = ScenarioMaker(texts=("a", "b", "c"), n_steps=3, tokens_per_message=4)
    run = next(maker.conversation().runs())
    found = attended_messages(run)
    assert found is not None
    assert found.places == ["first token", "0", "1", "2", "header", "generated"]
    weights = run.generation.rows.arrays["attention"].mean(2)
    # message 0 holds tokens 0 to 3, of which 0 stands alone; the header is 12 and 13; what was generated follows
    bounds = [(0, 1), (1, 4), (4, 8), (8, 12), (12, 14), (14, 16)]
    for place, (start, end) in enumerate(bounds):
        assert torch.allclose(found.by_step[:, :, place], weights[:, :, start:end].sum(-1))
    assert torch.allclose(found.by_step.sum(-1), torch.ones(4, 3), atol=1e-5)
    assert found.tokens.tolist() == [[1, 3, 4, 4, 2, 0], [1, 3, 4, 4, 2, 1], [1, 3, 4, 4, 2, 2]]


def test_a_run_in_the_middle_of_a_conversation_reads_the_messages_before_it_only():
    maker = ScenarioMaker(texts=("a", "b", "c", "d"), n_steps=2)
    first, last = maker.conversation(after=[2, 4]).runs()
    found = attended_messages(first)
    assert found is not None
    assert found.messages == [None, 0, 1, None, None]
    whole = attended_messages(last)
    assert whole is not None
    assert whole.by_step.sum(-1).numpy() == pytest.approx(1, abs=1e-5)


def test_without_attention_there_is_nothing():
    assert attended_messages(next(ScenarioMaker(attention=False).conversation().runs())) is None


def test_where_a_template_rewrites_messages_nothing_is_told():
    conversation = ScenarioMaker(texts=("a", "b", "c")).conversation()
    conversation.message_ends[0] = -1
    assert attended_messages(next(conversation.runs())) is None
