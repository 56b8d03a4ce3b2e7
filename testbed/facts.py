"""Documents that state facts: weekdays, months, the clock, sums, kinds.

In a frame, ^ marks words that the text so far determines (see `language.Page`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from testbed.language import MARK, Page
from testbed.lexicon import (
    ACTION,
    ANIMAL_KINDS,
    CHORE_MONTHS,
    CHORES,
    DIGITS,
    HOURS,
    KIND_OF,
    KINDS,
    LENGTHENING,
    MEMBERS,
    MONTHS,
    NUMBERS,
    PARENT,
    PART,
    SEASON_OF,
    WARMTH,
    WEATHER,
    WEEKDAYS,
    ancestors,
    article,
)  # fmt: skip


# --- cycles: weekdays, months, hours ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Cycle:
    """A cycle of words and the ways to speak of it. In frames: a start, b result, n offset, c before a."""

    name: str  # the skill's name
    words: tuple[str, ...]
    unit: str
    after: tuple[str, ...]
    before: tuple[str, ...]
    distance: tuple[str, ...]
    next_: tuple[str, ...]
    previous: tuple[str, ...]
    around: tuple[str, ...]

    def at(self, index: int) -> str:
        """The word at an index, modulo the length of the cycle."""
        return self.words[index % len(self.words)]

    def units(self, n: int) -> str:
        """An offset in words: "one day", "three days"."""
        return f"{NUMBERS[n - 1]} {self.unit}{'s' if n > 1 else ''}"


def _calendar(name: str, words: tuple[str, ...], unit: str, now: str, soon: str, past: str) -> Cycle:
    return Cycle(
        name=name,
        words=words,
        unit=unit,
        after=(
            "{n} after {a} is ^{b} .",
            "{n} after {a} it is ^{b} .",
            f"if {now} is {{a}} then in {{n}} it is ^{{b}} .",
            f"what {unit} is {{n}} after {{a}} ? ^{{b}} .",
        ),
        before=(
            "{n} before {a} is ^{b} .",
            "{n} before {a} it was ^{b} .",
            f"if {now} is {{a}} then {{n}} ago it was ^{{b}} .",
            f"what {unit} is {{n}} before {{a}} ? ^{{b}} .",
        ),
        distance=("from {a} to {b} is ^{n} .",),
        next_=(f"the {unit} after {{a}} is ^{{b}} .", "after {a} comes ^{b} .", "{a} is followed by ^{b} ."),
        previous=(f"the {unit} before {{a}} is ^{{b}} .", "before {a} comes ^{b} ."),
        around=(
            f"if {now} is {{a}} then {soon} is ^{{b}} and {past} was ^{{c}} .",
            "between {c} and {b} comes ^{a} .",
            f"{{a}} was {past} , so {now} is ^{{b}} .",
        ),
    )


DAYS = _calendar("weekday", WEEKDAYS, "day", "today", "tomorrow", "yesterday")
YEAR = _calendar("month", MONTHS, "month", "this month", "next month", "last month")
CLOCK = Cycle(
    name="clock",
    words=HOURS,
    unit="hour",
    after=(
        "{n} after {a} o'clock it is ^{b} o'clock .",
        "{n} later than {a} o'clock is ^{b} o'clock .",
        "if it is {a} o'clock now then in {n} it is ^{b} o'clock .",
        "what time is {n} after {a} o'clock ? ^{b} o'clock .",
    ),
    before=(
        "{n} before {a} o'clock it is ^{b} o'clock .",
        "{n} earlier than {a} o'clock is ^{b} o'clock .",
        "if it is {a} o'clock now then {n} ago it was ^{b} o'clock .",
        "what time is {n} before {a} o'clock ? ^{b} o'clock .",
    ),
    distance=("from {a} o'clock to {b} o'clock is ^{n} .",),
    next_=("the hour after {a} o'clock is ^{b} o'clock .", "after {a} o'clock comes ^{b} o'clock ."),
    previous=("the hour before {a} o'clock is ^{b} o'clock .", "before {a} o'clock comes ^{b} o'clock ."),
    around=("between {c} o'clock and {b} o'clock comes ^{a} o'clock .",),
)
FORMS = {"after": 0.28, "before": 0.28, "distance": 0.06, "next": 0.10, "previous": 0.08, "around": 0.08,
         "list": 0.07, "back": 0.05}  # fmt: skip


def cycle_sentence(page: Page, cycle: Cycle) -> None:
    """One sentence about a cycle: arithmetic with an offset, succession, distance, a list, or counting step by step."""
    draws, size = page.draws, len(cycle.words)
    form = draws.weighted(FORMS)
    start = draws.below(size)
    a = cycle.at(start)
    if form in ("after", "before"):
        sign = 1 if form == "after" else -1
        n = draws.between(1, size - 1)
        b = cycle.at(start + sign * n)
        if draws.chance(0.12):  # counted out word by word: a bridge from succession to arithmetic
            path = " ".join(MARK + cycle.at(start + sign * i) for i in range(1, n + 1))
            page.say(f"count {cycle.units(n)} {form} {a} : {path} .", f"{cycle.name} counting")
        else:
            frame = draws.choice(cycle.after if sign > 0 else cycle.before)
            page.say(frame.format(n=cycle.units(n), a=a, b=b), f"{cycle.name} arithmetic")
    elif form == "distance":
        n = draws.between(1, size - 1)
        page.say(draws.choice(cycle.distance).format(n=cycle.units(n), a=a, b=cycle.at(start + n)),
                 f"{cycle.name} distance")  # fmt: skip
    elif form in ("list", "back"):
        sign = 1 if form == "list" else -1
        words = [cycle.at(start + sign * i) for i in range(draws.length(3, 0.2, 12))]
        # Whether a list goes on after three words is a draw; the first three are determined by the one they start from.
        body = [words[0], MARK + words[1], MARK + words[2], *words[3:]]
        page.say(f"{cycle.unit}s{' back' if sign < 0 else ''} : {' '.join(body)} .", f"{cycle.name} succession")
    else:
        frames = {"next": cycle.next_, "previous": cycle.previous, "around": cycle.around}[form]
        b, c = (cycle.at(start - 1), "") if form == "previous" else (cycle.at(start + 1), cycle.at(start - 1))
        page.say(draws.choice(frames).format(a=a, b=b, c=c), f"{cycle.name} succession")


def season_sentence(page: Page) -> None:
    """A month's season and weather, how its days change, the warmer of two months, or what people do in one."""
    draws = page.draws
    form = draws.weighted({"season": 0.2, "weather": 0.14, "days": 0.1, "warmth": 0.2, "chore": 0.12, "asked": 0.24})
    month = draws.choice(MONTHS)
    season = SEASON_OF[month]
    if form == "season":
        page.say(f"{month} is in ^{season} .", "month season")
    elif form == "weather":
        page.say(f"in {month} it is {draws.choice(WEATHER[season])} , for it is ^{season} .", "month season")
    elif form == "days":
        page.say(f"in {month} the days grow ^{'longer' if month in LENGTHENING else 'shorter'} .", "month daylight")
    elif form == "chore":
        chore = draws.choice([chore for chore in CHORES if month in CHORE_MONTHS[chore]])
        page.say(f"in {month} people {chore} .")
    elif form == "asked":
        chore = draws.choice(CHORES)
        page.say(f"do people {chore} in {month} ? ^{'yes' if month in CHORE_MONTHS[chore] else 'no'} .", "month chores")
    else:
        pair = (month, draws.choice([other for other in MONTHS if other != month]))
        warmer = draws.chance(0.5)
        answer = (max if warmer else min)(pair, key=WARMTH.index)
        page.say(f"of {pair[0]} and {pair[1]} the {'warmer' if warmer else 'colder'} is ^{answer} .", "month warmth")


def days(page: Page) -> None:
    """A document about weekdays."""
    page.sentences(lambda p: cycle_sentence(p, DAYS), low=4, stop=0.1, limit=150)


def months(page: Page) -> None:
    """A document about months and seasons."""
    page.sentences(
        lambda p: season_sentence(p) if p.draws.chance(0.4) else cycle_sentence(p, YEAR), low=4, stop=0.1, limit=150
    )


def clock(page: Page) -> None:
    """A document about the hours of the clock."""
    page.sentences(lambda p: cycle_sentence(p, CLOCK), low=4, stop=0.1, limit=150)


# --- sums ---------------------------------------------------------------------------------------------------------
HELD_OUT_SHARE = 0.1


@cache
def held_out_pairs() -> frozenset[tuple[int, int]]:
    """Pairs of two-digit operands, in both orders, that no text adds up: what tests of sums ask for."""
    unordered = [(a, b) for a in range(10, 100) for b in range(a, 100)]
    chosen = random.Random("held-out sums").sample(unordered, round(HELD_OUT_SHARE * len(unordered)))
    return frozenset(chosen) | frozenset((b, a) for a, b in chosen)


@cache
def allowed_pairs() -> tuple[tuple[int, int], ...]:
    """Pairs of two-digit operands that texts may add up."""
    return tuple((a, b) for a in range(10, 100) for b in range(10, 100) if (a, b) not in held_out_pairs())


def spaced(number: int, mark: str = "") -> str:
    """A number as digit tokens: 72 -> "7 2"."""
    return " ".join(mark + digit for digit in str(number))


def operands(page: Page) -> tuple[int, int]:
    """Two operands: mostly two-digit pairs that are not held out, else at least one of one digit."""
    size = page.draws.weighted({"two": 0.7, "one": 0.1, "left": 0.1, "right": 0.1})
    if size == "two":
        return page.draws.choice(allowed_pairs())
    first = page.draws.between(10, 99) if size == "left" else page.draws.below(10)
    return first, page.draws.between(10, 99) if size == "right" else page.draws.below(10)


def sum_sentence(page: Page) -> None:
    """A sum in digits or in words, a comparison, or counting."""
    draws = page.draws
    form = draws.weighted({"digits": 0.66, "question": 0.1, "words": 0.08, "more": 0.06, "count": 0.06, "name": 0.04})
    if form in ("digits", "question"):
        a, b = operands(page)
        frame = "{a} + {b} = {c} ." if form == "digits" else "what is {a} + {b} ? {c} ."
        page.say(frame.format(a=spaced(a), b=spaced(b), c=spaced(a + b, MARK)), "sums")
    elif form == "words":
        total = draws.between(2, 12)
        a = draws.between(1, total - 1)
        page.say(f"{NUMBERS[a - 1]} and {NUMBERS[total - a - 1]} make ^{NUMBERS[total - 1]} .", "sums in words")
    elif form == "more":
        a, b = draws.sample(range(12), 2)
        page.say(f"{NUMBERS[a]} is ^{'more' if a > b else 'less'} than {NUMBERS[b]} .")
    elif form == "count":
        start = draws.below(90)
        numbers = " , ".join(spaced(start + i) for i in range(draws.between(3, 6)))
        page.say(f"count : {numbers} .")
    else:
        n = draws.between(1, 9)
        page.say(f"the digit {DIGITS[n]} is ^{NUMBERS[n - 1]} .", "sums in words")


def sums(page: Page) -> None:
    """A document of sums and numbers."""
    page.sentences(sum_sentence, low=4, stop=0.1, limit=150)


# --- kinds --------------------------------------------------------------------------------------------------------
def _other_kind(page: Page, member: str) -> str:
    """A kind that does not hold `member`, at one of the two lower levels of the taxonomy."""
    above = ancestors(member)
    return page.draws.choice([kind for kind in PARENT if kind not in above])


def kind_sentence(page: Page) -> None:
    """A statement or a question about what kind of thing something is."""
    draws = page.draws
    form = draws.below(12)
    member = draws.choice(MEMBERS)
    kind = KIND_OF[member]
    parent = PARENT[kind]
    one, skill = article(member), "kinds"

    def marked(noun: str) -> str:  # the article is determined too, but only the noun is the answer
        return article(noun).replace(" ", f" {MARK}")

    if form == 0:
        page.say(f"{one} is {marked(kind)} .", skill)
    elif form == 1:
        page.say(f"every {member} is {marked(kind)} and every {kind} is {marked(parent)} .", skill)
    elif form == 2:
        true = draws.chance(0.5)
        asked = draws.choice(ancestors(member)[:-1]) if true else _other_kind(page, member)
        page.say(f"is {one} {article(asked)} ? ^{'yes' if true else 'no'} .", skill)
    elif form == 3:
        page.say(f"{one} has ^{PART[kind]} .", skill)
    elif form == 4:
        action = MARK + ACTION[kind]
        page.say(f"{one} can {action} ." if kind in ANIMAL_KINDS else f"people {ACTION[kind]} {one} .", skill)
    elif form == 5:
        page.say(f"what is {one} ? {one} is {marked(kind)} .", skill)
    elif form == 6:
        page.say(f"{one} is {article(kind)} , so it is {marked(parent)} and has ^{PART[kind]} .", skill)
    elif form == 7:
        other = draws.choice([m for m in KINDS[kind] if m != member])
        page.say(f"{one} and {article(other)} are of one kind : ^{kind} .", skill)
    elif form == 8:
        false = _other_kind(page, member)
        page.say(f"{one} is not {article(false)} but {marked(kind)} .", skill)
    elif form == 9:
        wrong = draws.choice([m for m in MEMBERS if KIND_OF[m] != kind])
        pair = (member, wrong) if draws.chance(0.5) else (wrong, member)
        asked = draws.choice((kind, PART[kind]))
        question = f"which is {article(kind)}" if asked == kind else f"which has {asked}"
        page.say(f"{question} , the {pair[0]} or the {pair[1]} ? the ^{member} .", skill)
    elif form == 10:  # `member` is the odd one, among three of another kind
        other_kind = draws.choice([k for k in KINDS if k != kind])
        row = draws.sample(KINDS[other_kind], 3)
        row.insert(draws.below(4), member)
        page.say(f"{' , '.join(row)} : the odd one is ^{member} .", skill)
    else:
        row = draws.sample(KINDS[kind], draws.between(2, 4))
        page.say(f"some {kind} names : {' , '.join(row)} .")


def kinds(page: Page) -> None:
    """A document about kinds of things."""
    page.sentences(kind_sentence, low=4, stop=0.12, limit=150)
