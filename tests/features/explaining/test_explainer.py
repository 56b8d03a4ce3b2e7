"""The explainer against a stub of an OpenAI-compatible server."""

import math
import threading

import pytest

from src.errors import StrataError
from src.features.explaining.contexts import FeatureActivity
from src.features.explaining.explainer import AnswerCache, Endpoint, explain_features, explainer_prompt
from src.features.explaining.web import Patience
from src.features.scores.logit_lens import PromotedTokens
from src.features.windows import Context
from tests.fixtures.web_servers import answer, chat_server

__all__ = ["chat_server"]

KEY = "sk-very-secret-123"
PATIENCE = Patience(attempts=3, timeout=5, first_wait=0.01, longest_wait=1)


def endpoint(server, **changes):
    values = {"base_url": f"{server.url}/v1", "model": "stub", "key": KEY, "temperature": 0.0, "max_tokens": 60}
    return Endpoint(**{**values, "patience": PATIENCE, **changes})


def asked(server, prompts, folder, concurrency=1, **changes):
    place = endpoint(server, **changes)
    return explain_features(place, prompts, AnswerCache(folder, place), concurrency)


PROMPTS = {3: "aaa", 1: "bb", 2: "c"}


def test_explanations_come_in_order_and_the_key_goes_into_the_header_alone(chat_server, tmp_path):
    chat_server.reply = lambda prompt: f'  "Words about {prompt}."\nAnd more.'
    found = asked(chat_server, PROMPTS, tmp_path, concurrency=3)
    assert [(it.feature, it.text, it.source) for it in found.explanations] == [
        (feature, f"Words about {prompt}.", "stub") for feature, prompt in PROMPTS.items()
    ]
    path, headers = chat_server.requests[0]
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    sent = chat_server.prompts[0]
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("stub", 0.0, 60)
    assert all(KEY not in file.read_text() for file in tmp_path.rglob("*.json"))
    assert len(list(tmp_path.rglob("*.json"))) == 3


def test_no_key_and_no_settings_are_sent_where_none_are_given(chat_server, tmp_path):
    asked(chat_server, {1: "x"}, tmp_path, key=None, temperature=None, max_tokens=None)
    assert "Authorization" not in chat_server.requests[0][1]
    assert set(chat_server.prompts[0]) == {"model", "messages"}


def test_answers_are_cached_by_question_model_and_place(chat_server, tmp_path):
    asked(chat_server, PROMPTS, tmp_path)
    again = asked(chat_server, {**PROMPTS, 9: "new"}, tmp_path)
    assert len(chat_server.requests) == 4
    assert len(again.explanations) == 4
    asked(chat_server, {1: "bb"}, tmp_path, model="other")
    assert len(chat_server.requests) == 5


def test_a_busy_server_is_given_the_time_that_it_asks_for(chat_server, tmp_path):
    chat_server.failures[:] = [answer(429, Retry_After="0"), answer(503)]
    assert len(asked(chat_server, {1: "x"}, tmp_path).explanations) == 1
    assert len(chat_server.requests) == 3


@pytest.mark.parametrize(
    "body", [b"no json", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": " "}}]}', b"[]"]
)
def test_a_malformed_answer_costs_its_feature_alone(chat_server, tmp_path, body):
    chat_server.failures[:] = [answer(200, body)]
    found = asked(chat_server, PROMPTS, tmp_path)
    assert list(found.failed) == [3]
    assert [it.feature for it in found.explanations] == [1, 2]
    # it is asked again, and nothing else is
    assert not asked(chat_server, PROMPTS, tmp_path).failed
    assert len(chat_server.requests) == 4


def test_nothing_but_malformed_answers_is_an_error(chat_server, tmp_path):
    chat_server.failures[:] = [answer(200, b"{}")] * 3
    with pytest.raises(StrataError, match=r"no usable answer.*no chat completion"):
        asked(chat_server, PROMPTS, tmp_path)


def test_a_refused_key_stops_at_once_and_is_not_repeated_to_anyone(chat_server, tmp_path):
    chat_server.failures[:] = [answer(401, f"bad key {KEY}".encode())] * 3
    with pytest.raises(StrataError, match=r"HTTP 401.*bad key \[key\].*explainer.api_key_env") as told:
        asked(chat_server, PROMPTS, tmp_path)
    assert KEY not in str(told.value)
    assert len(chat_server.requests) == 1


def test_a_redirect_is_not_followed_with_the_key(chat_server, tmp_path):
    chat_server.failures[:] = [answer(302, Location=f"{chat_server.url}/elsewhere")]
    with pytest.raises(StrataError, match="HTTP 302"):
        asked(chat_server, {1: "x"}, tmp_path)
    assert len(chat_server.requests) == 1


def test_what_was_answered_before_a_failure_is_kept(chat_server, tmp_path):
    chat_server.failures[:] = [lambda handler: chat_server_answers(handler), answer(403)]

    def chat_server_answers(handler):
        answer(200, b'{"choices": [{"message": {"content": "kept"}}]}')(handler)

    with pytest.raises(StrataError, match="run again to go on"):
        asked(chat_server, PROMPTS, tmp_path)
    found = asked(chat_server, PROMPTS, tmp_path)
    assert found.explanations[0].text == "kept"
    assert len(chat_server.requests) == 4


def test_no_more_requests_at_a_time_than_allowed(chat_server, tmp_path):
    running, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=5)

    def reply(prompt):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()  # two are there together
        with lock:
            running -= 1
        return prompt

    chat_server.reply = reply
    asked(chat_server, {i: f"p{i}" for i in range(8)}, tmp_path, concurrency=2)
    assert most == 2


def test_the_prompt_marks_firings_by_strength_and_shows_weaker_ones():
    nan = math.nan
    top = Context(None, 0, 0, 1, 4.0, 1, (1, 2, 3), (nan, 4.0, 0.0))
    weak = Context(0, 1, 1, 2, 0.3, 2, (1, 3, 2), (nan, 2.0, 0.3))
    activity = FeatureActivity(5, 2, 2, 9, 2, 2.0, 4.0, 8.0, (1,), (), (top, weak))
    strings = {1: "<bos>", 2: " cat", 3: " sat\n", 4: " on"}
    prompt = explainer_prompt(activity, strings, PromotedTokens(((4, 1.0),), ()), n_contexts=6)
    assert "1. <bos> <<cat>>(10) sat\\n" in prompt
    assert "- <bos> <<sat\\n>>(5) <<cat>>(1)" in prompt
    assert 'more likely: "on"' in prompt
