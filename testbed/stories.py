"""Stories to recall from, and the barer texts that lead to them: retellings, inventories, echoes, links."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.language import MARK, Page
from testbed.lexicon import FILLERS, MEMBERS, NAMES, OBJECTS, PLACES, PRONOUN

ECHOED = tuple(dict.fromkeys((*NAMES, *OBJECTS, *PLACES, *MEMBERS)))  # a few words are both object and member


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
        form = draws.weighted({"put": 2, "with": 1, "had": 1, "found": 1, "took": 1})
        if form == "put":
            self.put(person, thing)
        elif form == "with":
            self.owner[thing] = person
            say(f"the {thing} was with {person} .")
        else:
            place = self._free_place()
            self.place[thing] = place
            say(f"{person} {form} the {thing} .")
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
