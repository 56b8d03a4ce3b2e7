"""Documents that tell of feelings and their causes, of animals and weather, of days; and notes that mix all topics."""

from __future__ import annotations

from testbed import facts
from testbed.language import MARK, Page
from testbed.lexicon import (
    ADJECTIVES,
    ANIMAL_KINDS,
    COLOURS,
    DEEDS,
    EMOTIONS,
    EVENTS,
    HAUNTS,
    KINDS,
    MONTHS,
    NAMES,
    POSSESSIVE,
    PRONOUN,
    REACTIONS,
    SEASON_OF,
    WEATHER,
    WEEKDAYS,
    article,
)  # fmt: skip


# --- emotions -----------------------------------------------------------------------------------------------------
def event_of(page: Page, emotion: str, person: str) -> str:
    """An event that gives rise to an emotion, as a clause about `person`: "ben lost his dog"."""
    return f"{person} {page.draws.choice(EVENTS[emotion]).format(p=POSSESSIVE[PRONOUN[person]])}"


def feeling(page: Page, emotion: str) -> str:
    """A word for an emotion, marked as determined by its event (evaluation accepts all words of the emotion)."""
    return MARK + page.draws.choice(EMOTIONS[emotion])


def emotion_sentence(page: Page) -> None:
    """An event of a person, how the person felt, and sometimes what the person did."""
    draws = page.draws
    person = draws.choice(NAMES)
    emotion = draws.choice(tuple(EMOTIONS))
    event = event_of(page, emotion, person)
    he = PRONOUN[person]
    form = draws.below(6)
    skill = "emotions"
    if form == 0:
        page.say(f"because {event} , {MARK}{he} was {feeling(page, emotion)} .", skill)
    elif form == 1:
        page.say(f"{event} , so {MARK}{he} was {feeling(page, emotion)} .", skill)
    elif form == 2:
        page.say(f"{event} and was {feeling(page, emotion)} .", skill)
    elif form == 3:
        word = draws.choice(EMOTIONS[emotion])
        page.say(f"why was {person} {word} ? {he} was {word} because {he} {event.split(' ', 1)[1]} .")
    elif form == 4:
        page.say(f"when {event} , {MARK}{he} {draws.choice(REACTIONS[emotion])} .", skill)
    else:
        page.say(f"{event} . {MARK}{he} was {feeling(page, emotion)} and {draws.choice(REACTIONS[emotion])} .", skill)


def emotions(page: Page) -> None:
    """A document about what people felt and why."""
    page.sentences(emotion_sentence, low=3, stop=0.15, limit=150)


# --- descriptions -------------------------------------------------------------------------------------------------
def description_sentence(page: Page) -> None:
    """An animal with what goes with its kind, or the weather of a month."""
    draws = page.draws
    if draws.chance(0.2):
        month = draws.choice(MONTHS)
        page.say(f"one day in {month} it was {draws.choice(WEATHER[SEASON_OF[month]])} .")
        return
    kind = draws.choice(ANIMAL_KINDS)
    animal = draws.choice(KINDS[kind])
    form = draws.below(4)
    # Only what is said may be drawn, else the code length would count choices that the text does not show.
    colour = draws.choice(COLOURS[kind]) if form != 2 else ""
    deed = draws.choice(DEEDS[kind]) if form != 3 else ""
    haunt = draws.choice(HAUNTS[kind]) if form != 3 else ""
    if form == 0:
        page.say(f"the {draws.choice(ADJECTIVES)} {colour} {animal} {deed} {haunt} .")
    elif form == 1:
        page.say(f"a {colour} {animal} {deed} {haunt} .")
    elif form == 2:
        page.say(f"{haunt} there was {article(draws.choice(ADJECTIVES))} {animal} and it {deed} .")
    else:
        page.say(f"we saw {article(animal)} . it was {colour} and {draws.choice(ADJECTIVES)} .")


def descriptions(page: Page) -> None:
    """A document that describes animals and weather."""
    page.sentences(description_sentence, low=3, stop=0.15, limit=150)


# --- diaries and notes --------------------------------------------------------------------------------------------
def diaries(page: Page) -> None:
    """Days in their order, each with weather, events and feelings of one or two people."""
    draws = page.draws
    people = draws.sample(NAMES, draws.between(1, 2))
    month, day = draws.choice(MONTHS), draws.below(7)
    page.say(f"diary of {' and '.join(people)} in {month} :")
    for i in range(draws.length(2, 0.25, 7)):
        today = WEEKDAYS[(day + i) % 7]
        if i == 0:
            page.say(f"on {today}")
        else:
            frame = draws.choice(("the next day was ^{} . on that day", "then came ^{} and"))
            page.say(frame.format(today), "diary days")
        if draws.chance(0.3):
            page.say(f"it was {draws.choice(WEATHER[SEASON_OF[month]])} and")
        emotion = draws.choice(tuple(EMOTIONS))
        person = draws.choice(people)
        page.say(event_of(page, emotion, person) + " .")
        if draws.chance(0.5):
            page.say(f"{MARK}{PRONOUN[person]} was {feeling(page, emotion)} .", "emotions")
        else:
            page.say(f"{MARK}{PRONOUN[person]} {draws.choice(REACTIONS[emotion])} .", "pronouns")
    page.say("that was all .")


def notes(page: Page) -> None:
    """A document that mixes sentences of all topics."""
    kinds_of_sentence = (
        lambda p: facts.cycle_sentence(p, facts.DAYS),
        lambda p: facts.cycle_sentence(p, facts.YEAR),
        lambda p: facts.cycle_sentence(p, facts.CLOCK),
        facts.sum_sentence,
        facts.kind_sentence,
        emotion_sentence,
        description_sentence,
    )
    page.say("notes :")
    page.sentences(lambda p: p.draws.choice(kinds_of_sentence)(p), low=4, stop=0.12, limit=150)
