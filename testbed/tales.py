"""Documents that tell something: stories to recall from, emotions and their causes, descriptions, diaries, notes."""

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
    FILLERS,
    HAUNTS,
    KINDS,
    MONTHS,
    NAMES,
    OBJECTS,
    PLACES,
    POSSESSIVE,
    PRONOUN,
    REACTIONS,
    SEASON_OF,
    WEATHER,
    WEEKDAYS,
    article,
)  # fmt: skip


# --- stories ------------------------------------------------------------------------------------------------------
class Story:
    """Who is where with what: the state that the sentences of a story change and its ending asks for."""

    def __init__(self, page: Page) -> None:
        draws = page.draws
        self.page = page
        self.people = draws.sample(NAMES, draws.between(2, 4))
        self.things = draws.sample(OBJECTS, len(self.people))
        self.owner: dict[str, str] = {}  # object -> the person who has it; an object that is put down has none
        self.place: dict[str, str] = {}  # object -> where it was put

    def put(self, person: str, thing: str) -> None:
        """`person` puts `thing` into a place where nothing else is, so that a place tells its object."""
        place = self.page.draws.choice([p for p in PLACES if p not in self.place.values()])
        moved = thing in self.place
        self.owner.pop(thing, None)
        self.place[thing] = place
        verb = "moved" if moved else self.page.draws.choice(("put", "hid"))
        self.page.say(f"{person} {verb} the {thing} {'to' if moved else 'in'} the {place} .")

    def open(self, person: str, thing: str) -> None:
        """`person` comes in with `thing`, and may put it down at once."""
        draws, say = self.page.draws, self.page.say
        form = draws.below(4)
        if form == 3:
            return self.put(person, thing)
        self.owner[thing] = person
        say(f"{person} {('had', 'found', 'took')[form]} the {thing} .")
        if draws.chance(0.5):
            place = draws.choice([p for p in PLACES if p not in self.place.values()])
            self.owner.pop(thing)
            self.place[thing] = place
            say(f"{MARK}{PRONOUN[person]} put it in the {place} .", "pronouns")
        return None

    def change(self) -> None:
        """Something is moved, taken or given away."""
        draws = self.page.draws
        thing = draws.choice(self.things)
        if thing in self.place:
            if draws.chance(0.6):
                self.put(draws.choice(self.people), thing)
            else:
                person = draws.choice(self.people)
                del self.place[thing]
                self.owner[thing] = person
                self.page.say(f"then {person} got the {thing} .")
        else:
            giver = self.owner[thing]
            taker = draws.choice([person for person in self.people if person != giver])
            self.owner[thing] = taker
            self.page.say(f"then {giver} gave the {thing} to {taker} .")

    def recall(self, thing: str) -> None:
        """A sentence that the story determines."""
        say, form = self.page.say, self.page.draws.below(3)
        if thing in self.place:
            place = self.place[thing]
            frame = (
                f"so the {thing} was in the ^{place} .",
                f"where was the {thing} ? the {thing} was in the ^{place} .",
                f"what was in the {place} ? the ^{thing} .",
            )[form]
        else:
            owner = self.owner[thing]
            frame = (
                f"so the {thing} was with ^{owner} .",
                f"who had the {thing} ? ^{owner} had the {thing} .",
                f"where was the {thing} ? the {thing} was with ^{owner} .",
            )[form]
        say(frame, "recall")


def stories(page: Page) -> None:
    """A story: each person comes in with an object, some things change, and one to three facts are recalled."""
    draws = page.draws
    story = Story(page)
    for person, thing in zip(story.people, story.things, strict=True):
        story.open(person, thing)
        if draws.chance(0.25):
            page.say(draws.choice(FILLERS))
    for _ in range(draws.below(4)):
        story.change()
        if draws.chance(0.15):
            page.say(draws.choice(FILLERS))
    page.say("the end :")
    for thing in draws.sample(story.things, draws.between(1, min(3, len(story.things)))):
        story.recall(thing)


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
