"""The generator: determinism, exact code length, truth of what it says."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest

from testbed import chats, facts, language, lexicon, stories, tales
from testbed.language import Draws, Page


class Scripted(Draws):
    """Draws that follow a script of outcomes and note how many outcomes each draw had, to enumerate a grammar."""

    def __init__(self, script: list[int]) -> None:
        super().__init__(0)
        self.script, self.widths, self.p = script, [], 1.0

    def _next(self, weights: list[float]) -> int:
        at = len(self.widths)
        outcome = self.script[at] if at < len(self.script) else 0
        if at >= len(self.script):
            self.script.append(0)
        self.widths.append(len(weights))
        self.p *= weights[outcome] / sum(weights)
        return outcome

    def below(self, n: int) -> int:
        return self._next([1.0] * n)

    def chance(self, p: float) -> bool:
        return self._next([p, 1 - p]) == 0

    def weighted(self, weights):
        return list(weights)[self._next(list(weights.values()))]


def enumerate_texts(write: Callable[[Page], None], pinned: tuple[int, ...] = ()) -> Iterator[tuple[str, float]]:
    """Every way in which `write` can draw a text, with its probability; the first draws may be pinned."""
    script = list(pinned)
    while True:
        draws = Scripted(script)
        page = Page(draws)
        write(page)
        yield " ".join(page.words), draws.p
        script = script[: len(draws.widths)]
        while len(script) > len(pinned) and script[-1] + 1 == draws.widths[len(script) - 1]:
            script.pop()
        if len(script) == len(pinned):
            return
        script[-1] += 1


SMALL = {
    "days": lambda p: facts.cycle_sentence(p, facts.DAYS),
    "months": lambda p: facts.cycle_sentence(p, facts.YEAR),
    "clock": lambda p: facts.cycle_sentence(p, facts.CLOCK),
    "season": facts.season_sentence,
    "sums": facts.sum_sentence,
    "emotions": tales.emotion_sentence,
    "descriptions": tales.description_sentence,
}


@pytest.mark.parametrize("name", SMALL)
def test_every_choice_can_be_read_off_the_text(name: str) -> None:
    """No two ways to draw give the same text, so that the sum of -ln p is the exact code length; and they sum to 1."""
    total, texts, count = 0.0, set(), 0
    for text, p in enumerate_texts(SMALL[name]):
        total += p
        texts.add(text)
        count += 1
    assert total == pytest.approx(1, abs=1e-9)
    assert len(texts) == count > 40


def test_kinds_can_be_read_off_the_text() -> None:
    """The same for kinds, form by form; the odd one out has 600,000 texts and is left out."""
    seen = Counter(
        text for form in range(12) if form not in (10, 11) for text, _ in enumerate_texts(facts.kind_sentence, (form,))
    )
    assert len(seen) > 2000
    assert max(seen.values()) == 1


def test_code_length_of_stories(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for stories in a small world: two openings, a change and a recalled fact."""
    monkeypatch.setattr(stories, "NAMES", ("ben", "anna"))
    monkeypatch.setattr(stories, "OBJECTS", ("key", "coin"))
    monkeypatch.setattr(stories, "PLACES", ("box", "bag", "hall"))

    def story(page: Page) -> None:
        told = stories.Story(page, 2)
        for person, thing in zip(told.people, told.things, strict=True):
            told.open(person, thing)
        told.change()
        told.recall(page.draws.choice(told.things), "recall")

    paths = list(enumerate_texts(story))
    assert sum(p for _, p in paths) == pytest.approx(1)
    assert len({text for text, _ in paths}) == len(paths)


def test_code_length_is_the_frequency() -> None:
    """Empirical frequencies of a small grammar agree with exp(-nats)."""
    n, seen, nats = 60_000, Counter(), {}
    for i in range(n):
        page = Page(Draws(i))
        facts.season_sentence(page)
        text = " ".join(page.words)
        seen[text] += 1
        assert nats.setdefault(text, page.draws.nats) == pytest.approx(page.draws.nats)
    assert sum(math.exp(-v) for v in nats.values()) == pytest.approx(1)
    for text, count in seen.items():
        p = math.exp(-nats[text])
        assert abs(count - n * p) < 5 * math.sqrt(n * p)


def test_code_length_of_draws() -> None:
    """Each kind of draw adds its own -ln p."""
    draws = Draws("x")
    draws.choice("abcd")
    assert draws.nats == pytest.approx(math.log(4))
    draws.sample(range(5), 3)
    assert draws.nats == pytest.approx(math.log(4) + math.log(5 * 4 * 3))
    before, hit = draws.nats, draws.chance(0.2)
    assert draws.nats - before == pytest.approx(-math.log(0.2 if hit else 0.8))
    before, key = draws.nats, draws.weighted({"a": 1, "b": 3})
    assert draws.nats - before == pytest.approx(-math.log({"a": 0.25, "b": 0.75}[key]))
    shares = Counter(Draws(i).weighted({"a": 1, "b": 3}) for i in range(4000))
    assert shares["b"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_same_seed_same_document() -> None:
    made = [language.document(f"a {i}") for i in range(200)]
    assert made == [language.document(f"a {i}") for i in range(200)]
    assert len({m.text for m in made}) == 200
    assert chats.conversation("c 1") == chats.conversation("c 1")
    assert {m.topic for m in made} == set(language.TOPICS)


def test_every_word_is_in_the_vocabulary() -> None:
    words = set(lexicon.vocabulary())
    assert len(lexicon.vocabulary()) == len(words) <= 700
    assert lexicon.vocabulary()[: len(lexicon.SPECIALS)] == list(lexicon.SPECIALS)
    used = {w for i in range(6000) for w in language.document(f"v {i}").text.split(" ")}
    used |= {w for i in range(1500) for w in chats.conversation(f"v {i}").text.split(" ")}
    assert used <= words


def test_documents_fit_their_rows_and_answers_point_at_words() -> None:
    for i in range(3000):
        made = language.document(f"fit {i}")
        assert 10 <= made.tokens <= 254
        assert all(0 < index < made.tokens - 1 for index, _ in made.answers)
    for i in range(1500):
        made = chats.conversation(f"fit {i}")
        users = [m for m in made.messages if m["role"] == "user"]
        assert 1 <= len(users) <= 20
        assert made.text.count(" ") + 3 <= 512
        assert made.text == " ".join(f"<{m['role']}> {m['content']} <end>" for m in made.messages)


def test_lexicon() -> None:
    assert len(lexicon.KINDS) == 15
    assert all(len(set(m)) == 6 for m in lexicon.KINDS.values())
    assert len(set(lexicon.MEMBERS)) == 90
    assert all(lexicon.ancestors(m)[-1] == "thing" for m in lexicon.MEMBERS)
    assert len(set(lexicon.NAMES)) == len(lexicon.EMOTION_OF) == 24
    described = lexicon.as_dict()
    assert described["kinds"]["bird"]["parent"] == "animal"
    assert described["kinds"]["thing"]["parent"] is None


# --- truth: statements parsed back, with none of the generator's code ------------------------------------------------
CYCLES = {"day": lexicon.WEEKDAYS, "month": lexicon.MONTHS, "hour": lexicon.NUMBERS}


def offset_claims(text: str) -> Iterator[tuple[str, str, int, str]]:
    """(unit, start, signed offset, result) of every statement of arithmetic on a cycle in a text."""
    tick, number = "(?: o'clock)?", "|".join(lexicon.NUMBERS)
    way_ = "after|before|later than|earlier than"
    for n, unit, way, a, b in re.findall(
        rf"({number}) (day|month|hour)s? ({way_}) (\w+){tick} (?:is|it is|it was|\?) (\w+)", text
    ):
        yield unit, a, (1 if way in ("after", "later than") else -1) * (lexicon.NUMBERS.index(n) + 1), b
    for a, n, unit, b in re.findall(rf"is (\w+){tick}(?: now)? then in (\w+) (day|month|hour)s? it is (\w+)", text):
        yield unit, a, lexicon.NUMBERS.index(n) + 1, b
    for a, n, unit, b in re.findall(rf"is (\w+){tick}(?: now)? then (\w+) (day|month|hour)s? ago it was (\w+)", text):
        yield unit, a, -lexicon.NUMBERS.index(n) - 1, b


def test_arithmetic_in_the_corpus_is_true(corpus: list[dict]) -> None:
    claims, sums = Counter(), 0
    for record in corpus:
        text = record["text"]
        for unit, a, offset, b in offset_claims(text):
            words = CYCLES[unit]
            if a in words and b in words:
                assert words[(words.index(a) + offset) % len(words)] == b, text
                claims[unit] += 1
        for a, b, c in re.findall(r"((?:\d )+)\+ ((?:\d )+)[=?] ((?:\d )+)\.", text):
            first, second, total = (int(x.replace(" ", "")) for x in (a, b, c))
            assert first + second == total, text
            assert (first, second) not in facts.held_out_pairs()
            sums += 1
    assert sums > 5000
    assert all(claims[unit] > 4000 for unit in CYCLES)


def test_kinds_in_the_corpus_are_true(corpus: list[dict]) -> None:
    asked = Counter()
    for record in corpus:
        for a, b, answer in re.findall(r"is an? (\w+) an? (\w+) \? (yes|no)", record["text"]):
            assert (b in lexicon.ancestors(a)) == (answer == "yes")
            asked[answer] += 1
        for a, b in re.findall(r"every (\w+) is an? (\w+)", record["text"]):
            assert lexicon.ancestors(a)[0] == b
    assert min(asked["yes"], asked["no"]) > 100


def recalled(text: str) -> Iterator[tuple[str, str]]:
    """(what a recall sentence claims, what a simulation of the story says) for each recall sentence of a story."""
    where: dict[str, str] = {}
    told_where = r"(?:\w+ (?:put|hid|moved) the (\w+) (?:in|to) the|(?:then )?the (\w+) was with) (\w+)"
    told = text.replace("the end : ", "")
    asked = re.sub(r"where was the (\w+) \? the \1 was", r"so the \1 was", told)  # the same claim as after "so"
    assert "?" not in asked, text
    for sentence in asked.removesuffix(" .").split(" . "):
        if match := re.fullmatch(r"so the (\w+) was (?:in the|with) (\w+)", sentence):
            yield match[2], where[match[1]]
        elif match := re.fullmatch(told_where, sentence):
            where[match[1] or match[2]] = match[3]
        elif match := re.fullmatch(r"(\w+) (?:had|found|took) the (\w+)", sentence):
            where[match[2]] = match[1]
        else:
            assert f"{sentence} ." in lexicon.FILLERS, sentence


def test_stories_end_as_they_went(corpus: list[dict]) -> None:
    found = 0
    for record in corpus:
        if record["topic"] == "stories":
            for claimed, simulated in recalled(record["text"]):
                assert claimed == simulated, record["text"]
                found += 1
    assert found > 3000


def test_nothing_held_out_is_in_the_training_corpus(corpus, heldout, chats_train, chats_heldout) -> None:
    assert len(heldout) == len({r["text"] for r in heldout}) == 1500
    assert not {r["text"] for r in heldout} & {r["text"] for r in corpus}
    plain = [{str(r["messages"]) for r in rows} for rows in (chats_train, chats_heldout)]
    assert not plain[0] & plain[1]
    for record in [*chats_train, *chats_heldout]:
        for message in record["messages"]:
            for a, b in re.findall(r"(\d \d) \+ (\d \d) \?", message["content"]):
                assert (int(a.replace(" ", "")), int(b.replace(" ", ""))) not in facts.held_out_pairs()


def test_held_out_pairs() -> None:
    pairs = facts.held_out_pairs()
    assert len(pairs) / 8100 == pytest.approx(0.1, abs=0.01)
    assert all((b, a) in pairs for a, b in pairs)
    assert not pairs & set(facts.allowed_pairs())
    assert len(facts.allowed_pairs()) + len(pairs) == 8100


def test_topics_by_share(corpus) -> None:
    tokens = defaultdict(int)
    for record in corpus:
        tokens[record["topic"]] += record["text"].count(" ") + 2
    total = sum(tokens.values())
    assert 600_000 < total < 800_000
    assert 0.35 < (tokens["days"] + tokens["months"] + tokens["clock"]) / total < 0.5
