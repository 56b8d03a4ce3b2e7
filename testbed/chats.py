"""Conversations: what the chat model is trained on, after the base model has learned the language.

A conversation is a list of messages {role, content}. Its plain text (which the chat template renders) is
`<user> ... <end> <assistant> ... <end> ...`, after an optional `<system> ... <end>`.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed import facts
from testbed.facts import CLOCK, DAYS, YEAR, Cycle, spaced
from testbed.language import MARK, Draws, Page
from testbed.lexicon import (
    ASSISTANT,
    EMOTIONS,
    END,
    EVENTS,
    KIND_OF,
    MEMBERS,
    MONTHS,
    NUMBERS,
    PARENT,
    PART,
    SEASON_OF,
    SYSTEM,
    USER,
    WEEKDAYS,
    ancestors,
    article,
)  # fmt: skip

# The system message and how it changes the assistant: "brief" answers in a word, "kind" adds a warm word to a feeling.
SYSTEM_MESSAGES = {"brief": "be brief .", "kind": "be kind .", "plain": "you are a helpful assistant ."}
TOPICS = {"emotional": 0.42, "factual": 0.3, "counting": 0.1, "mixed": 0.18}
WORD_LIMIT = 440  # a conversation stops before a row of 512 tokens is full


@dataclass(frozen=True)
class Chat:
    """A finished conversation. `answers` indexes the words of `text`; `nats` is the code length of `text`."""

    messages: tuple[dict[str, str], ...]
    topic: str
    nats: float
    answers: tuple[tuple[int, str], ...]
    text: str


class Talk:
    """A conversation under way, with what the assistant has to remember."""

    def __init__(self, draws: Draws) -> None:
        self.page = Page(draws)
        self.draws = draws
        self.messages: list[dict[str, str]] = []
        self.style = "none"
        self.event = ""  # the last event, told to the user: "you lost your dog"
        self.word = ""  # the word that the assistant used for the feeling it gave

    def say(self, role: str, content: str, skill: str = "") -> None:
        """Append a message; words marked with ^ are answers of `skill`."""
        self.page.say(f"{role} {content} {END}", skill)
        self.messages.append({"role": role.strip("<>"), "content": content.replace(MARK, "")})

    def exchange(self, question: str, answer: str, skill: str, short: str = "") -> None:
        """A user turn and the assistant's answer to it; `short` is the answer when the system asks to be brief."""
        if self.draws.chance(0.15):
            question = f"please tell me , {question}"
        self.say(USER, question)
        self.say(ASSISTANT, short if short and self.style == "brief" else answer, skill)


def _second_person(event: str) -> str:
    return event.replace("was ", "were ", 1) if event.startswith("was ") else event


def tell_event(talk: Talk) -> None:
    """The user tells an event (and may ask at once); the assistant names the feeling."""
    draws = talk.draws
    emotion = draws.choice(tuple(EMOTIONS))
    event = draws.choice(EVENTS[emotion])
    mine, yours = f"i {event.format(p='my')}", f"you {_second_person(event.format(p='your'))}"
    opening = draws.choice(("{} .", "today {} .", "{} this morning .", "guess what , {} .", "{} . how do i feel ?"))
    word = draws.choice(EMOTIONS[emotion])
    warm = " i am here for you ." if talk.style == "kind" else ""
    reply = f"^{word} ."
    if talk.style != "brief":
        form = draws.below(3)
        reply = (f"you are ^{word} because {yours} .", f"you feel ^{word} .", f"that makes you ^{word} .")[form] + warm
    talk.say(USER, opening.format(mine))
    talk.say(ASSISTANT, reply, "chat emotions")
    talk.event, talk.word = yours, word


def ask_feeling(talk: Talk) -> None:
    """The user asks for the feeling, its reason or the event: the assistant answers from the last event."""
    form = talk.draws.below(4)
    if form <= 1:
        question = ("how do i feel ?", "what do i feel now ?")[form]
        talk.exchange(question, f"you feel ^{talk.word} .", "chat recall", f"^{talk.word} .")
    else:
        question = (f"why do i feel {talk.word} ?", "why is that ?")[form - 2]
        reason = " ".join(MARK + word for word in talk.event.split(" "))
        talk.exchange(question, f"because {reason} .", "chat recall")


def ask_fact(talk: Talk) -> None:
    """A question about a cycle, a kind, a season or a sum."""
    draws = talk.draws
    form = draws.weighted({"cycle": 0.45, "kind": 0.27, "sum": 0.2, "season": 0.08})
    if form == "cycle":
        _ask_cycle(talk, draws.weighted({DAYS: 0.26, YEAR: 0.34, CLOCK: 0.4}))
    elif form == "kind":
        member = draws.choice(MEMBERS)
        kind = KIND_OF[member]
        noun = article(kind).replace(" ", " ^")
        question = draws.below(3)
        if question == 0:
            talk.exchange(f"what is {article(member)} ?", f"{article(member)} is {noun} .", "chat kinds", noun + " .")
        elif question == 1:
            talk.exchange(f"what has {article(member)} ?", f"{article(member)} has ^{PART[kind]} .", "chat kinds",
                          f"^{PART[kind]} .")  # fmt: skip
        else:
            true = draws.chance(0.5)
            above = ancestors(member)
            asked = draws.choice(above[:-1] if true else [k for k in PARENT if k not in above])
            answer = "^yes" if true else "^no"
            talk.exchange(f"is {article(member)} {article(asked)} ?", f"{answer} , {article(member)} is {noun} .",
                          "chat kinds", f"{answer} .")  # fmt: skip
    elif form == "sum":
        a, b = facts.operands(talk.page)
        total = spaced(a + b, MARK)
        talk.exchange(f"what is {spaced(a)} + {spaced(b)} ?", f"it is {total} .", "chat sums", f"{total} .")
    else:
        month = draws.choice(MONTHS)
        season = "^" + SEASON_OF[month]
        talk.exchange(f"what season is {month} in ?", f"{month} is in {season} .", "chat facts", f"{season} .")


def _ask_cycle(talk: Talk, cycle: Cycle) -> None:
    draws, size = talk.draws, len(cycle.words)
    start = draws.below(size)
    sign, word = draws.choice(((1, "after"), (-1, "before")))
    a = cycle.at(start) + (" o'clock" if cycle is CLOCK else "")
    if draws.chance(0.4):
        n, question = 1, f"what {cycle.unit} comes {word} {a} ?"
    else:
        n = draws.between(2, size - 1)
        question = f"what {cycle.unit} is {cycle.units(n)} {word} {a} ?"
    b = f"^{cycle.at(start + sign * n)}" + (" o'clock" if cycle is CLOCK else "")
    talk.exchange(question, f"it is {b} .", f"chat {cycle.name}", f"{b} .")


def ask_count(talk: Talk) -> None:
    """The user asks to count along a cycle or with numbers, forwards or backwards; the whole list is determined."""
    draws = talk.draws
    form = draws.choice(("days", "months", "numbers"))
    if form == "numbers":
        ends = sorted(draws.sample(range(12), 2))
        back = draws.chance(0.4)
        words = NUMBERS[ends[0] : ends[1] + 1]
        words = words[::-1] if back else words
    else:
        names = WEEKDAYS if form == "days" else MONTHS
        back = draws.chance(0.4)
        start, steps = draws.below(len(names)), draws.between(1, len(names) - 1)
        words = tuple(names[(start + (-i if back else i)) % len(names)] for i in range(steps + 1))
    listing = " ".join(MARK + word for word in words)
    question = f"count {'back ' if back else ''}from {words[0]} to {words[-1]} ."
    talk.exchange(question, f"{listing} .", "chat counting")


def conversation(seed: int | str) -> Chat:
    """The conversation of a seed: 1 to 20 user turns between an optional system message and an optional farewell."""
    draws = Draws(seed)
    talk = Talk(draws)
    style = draws.weighted({"none": 0.7, "brief": 0.1, "kind": 0.1, "plain": 0.1})
    talk.style = style
    if style != "none":
        talk.say(SYSTEM, SYSTEM_MESSAGES[style])
    topic = draws.weighted(TOPICS)
    if draws.chance(0.25):
        talk.say(USER, draws.choice(("hello .", "hello , how are you ?")))
        talk.say(ASSISTANT, "hello , how can i help you ?")
    mean = draws.choice((3, 3, 6, 14))  # not shown by the text: many short talks, some long; hence an upper bound
    for turn in range(draws.length(1, 1 / mean, 18)):
        if len(talk.page.words) > WORD_LIMIT:
            break
        part = topic
        if part == "mixed":
            part = draws.weighted({"emotional": 0.55, "factual": 0.3, "counting": 0.15})
        if part == "emotional":
            ask_feeling(talk) if talk.event and (turn and draws.chance(0.4)) else tell_event(talk)
        elif part == "factual":
            ask_fact(talk)
        else:
            ask_count(talk)
    if draws.chance(0.3):
        talk.say(USER, draws.choice(("thank you .", "thanks , goodbye .")))
        talk.say(ASSISTANT, "you are welcome .")
    page = talk.page
    return Chat(tuple(talk.messages), topic, draws.nats, tuple(page.answers), " ".join(page.words))
