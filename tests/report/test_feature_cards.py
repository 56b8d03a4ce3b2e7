"""Feature cards: one file that needs nothing else, with tokens of strangers in it."""

import json
import math
import re
from html.parser import HTMLParser

import pytest

from src.features.explaining.cards import FeatureCard, LayerCards
from src.features.explaining.contexts import FeatureActivity
from src.features.explaining.explanations import Explanation
from src.features.scores.logit_lens import PromotedTokens
from src.features.scores.token_tally import TokenShare
from src.features.windows import Context
from src.report.feature_cards import page_name, write_feature_cards

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> <!-- \u2028 & 'q' \"q\" \ud800"
STRINGS = {1: "<bos>", 2: HOSTILE, 3: " sat\n"}


class Elements(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found, self.texts, self.last = [], {}, ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.last = dict(attrs).get("id", tag)

    def handle_data(self, data):
        self.texts[self.last] = self.texts.get(self.last, "") + data


def card(feature, **changes):
    context = Context(None, 4, 5, 6, 3.0, 1, (1, 2, 3), (math.nan, 3.0, 0.0))
    tokens = (TokenShare(2, 9, 0.99, 0.5, 2.0), TokenShare(3, 1, 0.001, 0.1, 0.2))
    activity = FeatureActivity(feature, 10, 4, 1000, 50, 2.0, 3.0, 4.0, (0, 6, 0, 4) + (0,) * 60, tokens, (context,))
    words = PromotedTokens(((2, 1.5),), ((3, -0.5),))
    values = {"explanations": (Explanation(feature, HOSTILE, "gpt"),), "activity": activity, "promoted": words}
    return FeatureCard(feature, **{**values, "neighbours": ((8, 0.5),), "scores": {"final_score": 0.25}, **changes})


@pytest.fixture
def page(tmp_path):
    layers = [LayerCards(2, [card(7), card(8), card(9, explanations=())], HOSTILE, "resid_post.2", None, 1000)]
    pages = write_feature_cards(tmp_path, layers, STRINGS, HOSTILE)
    assert [it.file for it in pages] == [page_name(2)] == ["feature_cards_2.html"]
    return (tmp_path / page_name(2)).read_text(encoding="utf-8")


def test_hostile_tokens_and_explanations_stay_text(page):
    elements = Elements(page)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 2
    assert not {"img", "iframe", "link", "object"} & set(tags)
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert "alert(1)</script>" not in page.split('id="data">')[1].split("</script>")[0]
    data = json.loads(elements.texts["data"])
    assert data["strings"][0] == HOSTILE.replace("\ud800", "?")


def test_nothing_is_requested_and_only_our_script_runs(page):
    elements = Elements(page)
    policy = next(it["content"] for tag, it in elements.found if it.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/=]+';", policy)
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def test_cards_have_stable_anchors_and_titles_without_a_script(page):
    elements = Elements(page)
    ids = [attributes["id"] for tag, attributes in elements.found if tag == "article"]
    assert ids == ["feature-7", "feature-8", "feature-9"]
    # nobody has explained feature 9: its tokens stand there, without those that hardly matter
    assert page.count("title tokens") == 1
    assert "sat" not in page.split('id="feature-9"')[1].split("</article>")[0]


def test_the_data_are_those_of_the_card(page):
    data = json.loads(Elements(page).texts["data"])
    first = data["cards"][0]
    assert data["scores"] == ["final_score"]
    assert (first["id"], first["n"], first["of"], first["max"]) == (7, 10, 1000, 3.0)
    assert (first["bins"], first["n_bins"]) == ([0, 6, 0, 4], 64)
    assert (first["near"], first["scores"]) == ([[8, 0.5]], {"final_score": 0.25})
    context = first["contexts"][0]
    assert [data["strings"][token] for token in context["t"]] == ["<bos>", HOSTILE.replace("\ud800", "?"), " sat\n"]
    assert (context["a"], context["x"], context["at"], context["b"]) == ([1, 3.0], [0], 1, None)
    assert [data["strings"][token] for token, _ in first["down"]] == [" sat\n"]


def test_an_sae_without_activity_has_cards_too(tmp_path):
    bare = card(3, activity=None, promoted=None, explanations=(), scores={}, neighbours=())
    write_feature_cards(tmp_path, [LayerCards(0, [bare])], {}, "m")
    assert json.loads(Elements((tmp_path / page_name(0)).read_text()).texts["data"])["cards"] == [{"id": 3}]


def test_eight_hundred_cards_stay_small(tmp_path):
    contexts = tuple(
        Context(None, i, i, 9, 2.0, 16, tuple(range(i, i + 25)), (0.0,) * 16 + (2.0,) + (0.0,) * 8) for i in range(24)
    )
    activity = FeatureActivity(0, 10, 4, 1000, 50, 2.0, 3.0, 4.0, (9,) * 64, (), contexts)
    strings = {token: f" word{token}" for token in range(60)}
    cards = [FeatureCard(feature, activity=activity) for feature in range(800)]
    write_feature_cards(tmp_path, [LayerCards(0, cards)], strings, "m")
    assert (tmp_path / page_name(0)).stat().st_size < 5e6
