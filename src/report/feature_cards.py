"""Feature cards: one HTML file per layer that needs nothing else, with a card for each feature.

The page holds a skeleton of every card (id, explanation, words), which is there without JavaScript too, and the rest as
compact JSON that a script of ours turns into elements when a card comes near the screen: text nodes only, never markup.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from src.features.explaining.cards import FeatureCard, LayerCards
from src.features.explaining.contexts import FeatureActivity
from src.features.scores.token_tally import TokenShare
from src.report.artifact_report import NamedPage
from src.report.charts import TEMPLATES, page_policy, templates, write_whole
from src.report.tables import format_number

_WORDS = 5
_TELLING = 0.01  # share of a feature's activation


def page_name(layer: int) -> str:
    """The file of a layer's cards; the card of feature 123 stands at `#feature-123`."""
    return f"feature_cards_{layer}.html"


def write_feature_cards(
    folder: Path, layers: Sequence[LayerCards], strings: Mapping[int, str], model: str
) -> list[NamedPage]:
    """Write `feature_cards_<layer>.html` of each layer. strings: the text of every token that the cards show.

    Returns the pages, for the report. Raises StrataError when the place can't be written.
    """
    pages = []
    for layer in layers:
        others = [(it.layer, page_name(it.layer)) for it in layers]
        write_whole(folder / page_name(layer.layer), _page(layer, strings, model, others).encode("utf-8", "replace"))
        pages.append(NamedPage(f"Cards of layer {layer.layer} ({len(layer.cards):,})", page_name(layer.layer)))
    return pages


def _page(layer: LayerCards, strings: Mapping[int, str], model: str, others: Sequence[tuple[int, str]]) -> str:
    script = (TEMPLATES / "cards.js").read_text(encoding="utf-8")
    words = _Strings(strings)
    scores = list(dict.fromkeys(name for card in layer.cards for name in card.scores))
    cards = [_compact(card, words) for card in layer.cards]
    data = {"cards": cards, "strings": words.used, "scores": scores}
    return (
        templates()
        .get_template("cards.html.j2")
        .render(
            title=f"Features of layer {layer.layer}",
            model=model,
            layer=layer,
            others=others if len(others) > 1 else [],
            cards=[_skeleton(card, strings) for card in layer.cards],
            scores=scores,
            # <, > and & are escaped inside: a token can't end the script element
            data=Markup(_script_json(data)),
            style=Markup((TEMPLATES / "cards.css").read_text(encoding="utf-8")),
            boot=Markup(script),
            policy=page_policy(script),
        )
    )


def _script_json(data: Any) -> str:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _skeleton(card: FeatureCard, strings: Mapping[int, str]) -> dict[str, Any]:
    """What a card says before its details are drawn."""
    return {
        "id": card.feature,
        "title": card.explanations[0].text if card.explanations else _title(card, strings),
        "is_explained": bool(card.explanations),
    }


def _title(card: FeatureCard, strings: Mapping[int, str]) -> str:
    """The tokens that make the feature fire, where nobody has explained it."""
    if card.activity is None or not card.activity.tokens:
        return "does not fire here" if card.activity is not None else "no explanation"
    return " · ".join(shown(strings[it.token_id]) for it in telling_tokens(card.activity)[:_WORDS])


def telling_tokens(activity: FeatureActivity) -> list[TokenShare]:
    """The tokens that have 1 % of the feature's activation or more, and the first one in any case."""
    return [it for place, it in enumerate(activity.tokens) if place == 0 or it.share >= _TELLING]


def shown(token: str) -> str:
    """A token in running text: white space that would not be seen gets a sign."""
    text = token.replace("\n", "↵").replace("\t", "⇥")
    return text.strip() or "␣" * max(len(text), 1)


class _Strings:
    """The token strings of a page, each once."""

    def __init__(self, strings: Mapping[int, str]) -> None:
        self._strings = strings
        self._place: dict[int, int] = {}
        self.used: list[str] = []

    def place(self, token_id: int) -> int:
        """Where the page keeps a token's text."""
        if token_id not in self._place:
            self._place[token_id] = len(self.used)
            self.used.append(self._strings[token_id])
        return self._place[token_id]


def _compact(card: FeatureCard, words: _Strings) -> dict[str, Any]:
    """A card's details, as cards.js reads them."""
    compact: dict[str, Any] = {"id": card.feature}
    if card.explanations:
        compact["said"] = [[it.text, it.source, it.method] for it in card.explanations]
    if card.scores:
        compact["scores"] = {name: _short(value) for name, value in card.scores.items()}
    if card.neighbours:
        compact["near"] = [[feature, round(cosine, 3)] for feature, cosine in card.neighbours]
    if card.promoted is not None:
        sides = {"up": card.promoted.promoted, "down": card.promoted.suppressed}
        compact |= {
            side: [[words.place(token), _short(effect)] for token, effect in entries] for side, entries in sides.items()
        }
    if card.activity is not None:
        compact |= _compact_activity(card.activity, words)
    return compact


def _compact_activity(activity: FeatureActivity, words: _Strings) -> dict[str, Any]:
    last = max((place for place, count in enumerate(activity.counts) if count), default=-1)
    return {
        "n": activity.firings,
        "of": activity.n_tokens,
        "seqs": activity.sequences,
        "of_seqs": activity.n_sequences,
        "mean": _short(activity.mean),
        "max": _short(activity.maximum),
        "upper": activity.upper,
        "bins": list(activity.counts[: last + 1]),
        "n_bins": len(activity.counts),
        "tokens": [
            [words.place(it.token_id), round(it.share, 4), round(it.rate, 4), it.firings]
            for it in telling_tokens(activity)
        ],
        "contexts": [
            {
                "b": context.band,
                "d": context.document,
                "p": context.position,
                "at": context.place,
                "t": [words.place(token) for token in context.token_ids],
                # place and activation of each token on which it fires; places that are not counted
                "a": [
                    number
                    for place, value in enumerate(context.activations)
                    if value > 0
                    for number in (place, _short(value))
                ],
                "x": [place for place, value in enumerate(context.activations) if value != value],
            }
            for context in activity.contexts
        ],
    }


def _short(value: float) -> float:
    """Four significant digits: what a reader sees, and a third of the bytes."""
    return float(f"{value:.4g}")


def card_words(card: FeatureCard, strings: Mapping[int, str], n: int = 4) -> tuple[str, str]:
    """The feature's top tokens with their shares, and the words that it promotes, for a table."""
    tokens = telling_tokens(card.activity)[:n] if card.activity is not None else ()
    promoted = card.promoted.promoted[:n] if card.promoted is not None else ()
    return (
        ", ".join(f"{shown(strings[it.token_id])} {format_number(round(100 * it.share))} %" for it in tokens),
        ", ".join(shown(strings[token]) for token, _ in promoted),
    )
