"""Documents that tell something: stories to recall from, emotions and their causes, descriptions, diaries, notes."""

from __future__ import annotations

from collections.abc import Sequence

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
    MEMBERS,
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

ECHOED = tuple(dict.fromkeys((*NAMES, *OBJECTS, *PLACES, *MEMBERS)))  # a few words are both object and member


# --- stories ------------------------------------------------------------------------------------------------------
class Story:
    """Who is where with what: the state that the sentences of a story change and its ending asks for."""

    def __init__(self, page: Page, people: int) -> None:
        draws = page.draws
        self.page = page
        self.people = draws.sample(NAMES, people)
        self.things = draws.sample(OBJECTS, len(self.people))
        self.owner: dict[str, str] = {}  # object -> the person who has it; an object that is put down has none
        self.place: dict[str, str] = {}  # object -> where it was put

    def _free_place(self) -> str:
        """A place where nothing is, so that a place tells its object."""
        return self.page.draws.choice([p for p in PLACES if p not in self.place.values()])

    def put(self, person: str, thing: str) -> None:
        """`person` puts or moves `thing` into a place where nothing else is."""
        place, draws = self._free_place(), self.page.draws
        if thing in self.place:
            self.page.say(f"{person} moved the {thing} to the {place} .")
        else:
            self.page.say(f"{person} {draws.choice(('put', 'hid'))} the {thing} in the {place} .")
        self.owner.pop(thing, None)
        self.place[thing] = place

    def open(self, person: str, thing: str) -> None:
        """`person` comes in with `thing`, and may put it down at once."""
        draws, say = self.page.draws, self.page.say
        form = draws.below(6)
        if form > 3:
            self.put(person, thing)
        elif form == 3:
            self.owner[thing] = person
            say(f"the {thing} was with {person} .")
        else:
            place = self._free_place()
            self.place[thing] = place
            say(f"{person} {('had', 'found', 'took')[form]} the {thing} .")
            say(f"{MARK}{PRONOUN[person]} put the {MARK}{thing} in the {place} .", "pronouns")

    def change(self) -> None:
        """Something is moved, or goes to a person."""
        draws = self.page.draws
        thing = draws.choice(self.things)
        if draws.chance(0.6):
            self.put(draws.choice(self.people), thing)
        else:
            person = draws.choice([person for person in self.people if person != self.owner.get(thing)])
            self.place.pop(thing, None)
            self.owner[thing] = person
            self.page.say(f"then the {thing} was with {person} .")

    def recall(self, thing: str, skill: str) -> None:
        """Say a sentence that the story so far determines: where a thing is, or with whom.

        A place or a person always comes three or four words after its thing, when it is told and when it is asked for.
        Tales that bound them over many distances, through pronouns and both ways, were too much for models of this
        size: after 6 million tokens they named some place of the story, and the right one in 6 of 10 cases.
        """
        where = f"in the {MARK}{self.place[thing]}" if thing in self.place else f"with {MARK}{self.owner[thing]}"
        question = ("so", f"where was the {thing} ?")[self.page.draws.below(2)]
        self.page.say(f"{question} the {thing} was {where} .", skill)


def _tell(page: Page, story: Story, check: float, changes: int) -> None:
    """Tell a story. After each event, with probability `check`, a fact of the moment is recalled."""
    draws = page.draws

    def pause(known: Sequence[str]) -> None:
        if draws.chance(0.15):
            page.say(draws.choice(FILLERS))
        if draws.chance(check):
            story.recall(draws.choice(known), "recall at once")

    for i, (person, thing) in enumerate(zip(story.people, story.things, strict=True)):
        story.open(person, thing)
        pause(story.things[: i + 1])
    for _ in range(changes):
        story.change()
        pause(story.things)
    page.say("the end :")
    for thing in draws.sample(story.things, draws.between(1, min(3, len(story.things)))):
        story.recall(thing, "recall")


def stories(page: Page) -> None:
    """A story: each person comes in with an object, some things change, and one to three facts are recalled."""
    changes = page.draws.weighted({0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1})
    _tell(page, Story(page, page.draws.between(2, 4)), check=0.35, changes=changes)


def retellings(page: Page) -> None:
    """A short story that recalls all the time: for the first phase of training, where it teaches to look back."""
    _tell(page, Story(page, page.draws.between(2, 3)), check=0.9, changes=page.draws.below(2))


def inventories(page: Page) -> None:
    """Where things were, and at once all of it again in another order: for training, where it teaches to look up.

    The barest form of a story: nothing but pairs of a thing and its place or owner, and many questions about them.
    """
    draws = page.draws
    story = Story(page, draws.between(2, 4))
    for person, thing in zip(story.people, story.things, strict=True):
        if draws.chance(0.3):
            story.owner[thing] = person
            page.say(f"the {thing} was with {person} .")
        else:
            story.place[thing] = draws.choice([p for p in PLACES if p not in story.place.values()])
            page.say(f"the {thing} was in the {story.place[thing]} .")
    page.say("the end :")
    for _ in range(2):
        for thing in draws.sample(story.things, len(story.things)):
            story.recall(thing, "inventories")


def echoes(page: Page) -> None:
    """Words said by one person and again by another; and pairs of words, again in another order.

    Stories alone leave the models at chance for thousands of steps: what tells one place from another must first be
    carried from where it was said, and repeated lists are where that pays at once.
    """
    page.sentences(_echo, low=3, stop=0.15, limit=130)


def _echo(page: Page) -> None:
    draws = page.draws
    first, second = draws.sample(NAMES, 2)
    if draws.chance(0.5):
        words = draws.sample(ECHOED, draws.between(3, 8))
        page.say(f"{first} said : {' '.join(words)} . {second} said : {' '.join(MARK + w for w in words)} .", "echoes")
    else:
        words = draws.sample(ECHOED, 2 * draws.between(2, 4))
        pairs = list(zip(words[::2], words[1::2], strict=True))
        again = draws.sample(pairs, len(pairs))
        page.say(f"{first} chose : {' , '.join(f'{a} {b}' for a, b in pairs)} .")
        page.say(f"{second} chose : {' , '.join(f'{a} {MARK}{b}' for a, b in again)} .", "echoes of pairs")


GLUE = ("", "in ", "in the ", "was in the ", "was with ", "? ", "? in the ", "? with ")


def links(page: Page) -> None:
    """Pairs of words, tied by other words when they come again: the ladder from echoes of pairs to stories.

    For training only. A model that finds the partner of a word just after it does not yet find it some words further.
    """
    page.sentences(_link, low=3, stop=0.12, limit=120)


def _link(page: Page) -> None:
    draws = page.draws
    n = draws.between(2, 4)
    if draws.chance(0.6):
        keys, values = draws.sample(OBJECTS, n), draws.sample(draws.choice((PLACES, NAMES)), n)
    else:
        words = draws.sample(ECHOED, 2 * n)
        keys, values = words[:n], words[n:]
    told, asked = draws.choice(GLUE), draws.choice(GLUE)
    the = draws.choice(("", "the "))
    pairs = list(zip(keys, values, strict=True))
    page.say(f"all : {' , '.join(f'{the}{a} {told}{b}' for a, b in pairs)} .")
    again = draws.sample(pairs, n)
    page.say(f"so {' , '.join(f'{the}{a} {asked}{MARK}{b}' for a, b in again)} .", "links")


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
