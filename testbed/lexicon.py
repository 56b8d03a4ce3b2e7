"""The words of the testbed's language and the structure that they stand in.

Everything a generator, a test or a later consumer may want to know about the world of the language is a constant here:
cycles (weekdays, months, hours), digits, the taxonomy of kinds, emotions with their words, events and reactions,
people, places, and what may be said of what. `as_dict` is the part of it that is written to `lexicon.json`.
"""

# ruff: noqa: SIM905 (word lists read better as text)
from __future__ import annotations

PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
USER, ASSISTANT, SYSTEM, END = "<user>", "<assistant>", "<system>", "<end>"
SPECIALS = (PAD, UNK, BOS, EOS, USER, ASSISTANT, SYSTEM, END)

# --- cycles and numbers -------------------------------------------------------------------------------------------
WEEKDAYS = tuple("monday tuesday wednesday thursday friday saturday sunday".split())
MONTHS = tuple("january february march april may june july august september october november december".split())
NUMBERS = tuple("one two three four five six seven eight nine ten eleven twelve".split())
HOURS = NUMBERS  # the clock is told with the number words, "three o'clock"
DIGITS = tuple("0123456789")
SEASONS = tuple("winter spring summer autumn".split())
SEASON_OF = {month: SEASONS[(i + 1) % 12 // 3] for i, month in enumerate(MONTHS)}
WARMTH = tuple(  # the months from the coldest to the warmest
    "january february december march november april october may september june august july".split()
)
LENGTHENING = MONTHS[:6]  # the months in which the days grow longer
# What people do for half of the year: the first from january to june, the second from february to july, and so on.
CHORES = tuple("sow plant weed mow sail gather reap brew hunt skate ski knit".split())
CHORE_MONTHS = {chore: tuple(MONTHS[(i + j) % 12] for j in range(6)) for i, chore in enumerate(CHORES)}
WEATHER = {
    "winter": tuple("cold snowy icy".split()),
    "spring": tuple("mild rainy fresh".split()),
    "summer": tuple("hot sunny dry".split()),
    "autumn": tuple("windy foggy damp".split()),
}

# --- kinds --------------------------------------------------------------------------------------------------------
KINDS: dict[str, tuple[str, ...]] = {
    "bird": tuple("robin sparrow eagle owl crow duck".split()),
    "fish": tuple("salmon trout shark cod tuna herring".split()),
    "mammal": tuple("dog cat horse cow lion mouse".split()),
    "insect": tuple("ant bee moth beetle wasp cricket".split()),
    "reptile": tuple("snake lizard turtle crocodile gecko cobra".split()),
    "tree": tuple("oak pine maple birch willow elm".split()),
    "flower": tuple("rose tulip daisy lily poppy violet".split()),
    "fruit": tuple("apple pear plum cherry lemon grape".split()),
    "vegetable": tuple("carrot onion cabbage potato leek turnip".split()),
    "tool": tuple("hammer spade wrench chisel axe drill".split()),
    "vehicle": tuple("car bus train bicycle truck tram".split()),
    "instrument": tuple("piano violin flute drum guitar trumpet".split()),
    "garment": tuple("coat shirt hat scarf glove sock".split()),
    "container": tuple("box bag basket jar bottle bucket".split()),
    "building": tuple("barn tower castle church mill palace".split()),
}
PARENT: dict[str, str] = {
    **dict.fromkeys(("bird", "fish", "mammal", "insect", "reptile"), "animal"),
    **dict.fromkeys(("tree", "flower", "fruit", "vegetable"), "plant"),
    **dict.fromkeys(("tool", "vehicle", "instrument", "garment", "container", "building"), "artefact"),
    "animal": "organism",
    "plant": "organism",
    "organism": "thing",
    "artefact": "thing",
}
KIND_OF = {member: kind for kind, members in KINDS.items() for member in members}
MEMBERS = tuple(KIND_OF)
PART: dict[str, str] = {
    "bird": "wings", "fish": "fins", "mammal": "fur", "insect": "feelers", "reptile": "scales",
    "tree": "branches", "flower": "petals", "fruit": "seeds", "vegetable": "roots",
    "tool": "handles", "vehicle": "wheels", "instrument": "notes", "garment": "seams", "container": "lids",
    "building": "walls",
}  # fmt: skip
# What an animal can do, or what people can do with anything else.
ACTION: dict[str, str] = {
    "bird": "fly", "fish": "swim", "mammal": "run", "insect": "crawl", "reptile": "slither",
    "tree": "climb", "flower": "smell", "fruit": "peel", "vegetable": "boil",
    "tool": "sharpen", "vehicle": "drive", "instrument": "play", "garment": "wear", "container": "fill",
    "building": "enter",
}  # fmt: skip
ANIMAL_KINDS = tuple(kind for kind, parent in PARENT.items() if parent == "animal")

# --- descriptions: what goes with what ----------------------------------------------------------------------------
COLOURS: dict[str, tuple[str, ...]] = {
    "bird": ("black", "white", "blue"),
    "fish": ("silver", "blue", "grey"),
    "mammal": ("brown", "white", "black"),
    "insect": ("black", "yellow", "red"),
    "reptile": ("green", "grey", "brown"),
}
ADJECTIVES = tuple("small big old young quick slow".split())
DEEDS: dict[str, tuple[str, ...]] = {
    "bird": ("flew", "sang", "perched"),
    "fish": ("swam", "dived", "leapt"),
    "mammal": ("ran", "slept", "grazed"),
    "insect": ("crawled", "buzzed", "hopped"),
    "reptile": ("slithered", "basked", "hissed"),
}
HAUNTS: dict[str, tuple[str, ...]] = {
    "bird": ("above the roof", "in the sky", "near the nest"),
    "fish": ("in the river", "in the lake", "under the bridge"),
    "mammal": ("in the meadow", "in the forest", "near the farm"),
    "insect": ("in the grass", "under the leaf", "near the hive"),
    "reptile": ("on the rock", "in the desert", "under the sand"),
}

# --- people, things and places of the stories -------------------------------------------------------------------------
HE_NAMES = tuple("ben tom jack sam paul luke max leo hugo adam eric finn".split())
SHE_NAMES = tuple("anna mary lucy emma rosa kate jane nora ella ruth sara zoe".split())
NAMES = HE_NAMES + SHE_NAMES
PRONOUN = {**dict.fromkeys(HE_NAMES, "he"), **dict.fromkeys(SHE_NAMES, "she")}
POSSESSIVE = {"he": "his", "she": "her"}
OBJECTS = tuple("key coin ball book lamp letter ring cup map rope stone pen".split())
PLACES = tuple("box bag basket jar kitchen garden cellar attic hall yard drawer shed".split())
FILLERS = (
    "the sun was shining .",
    "it was raining .",
    "the house was quiet .",
    "a bell rang .",
    "the wind was cold .",
    "nobody said a word .",
)

# --- emotions -----------------------------------------------------------------------------------------------------
EMOTIONS: dict[str, tuple[str, ...]] = {
    "joy": ("happy", "glad", "cheerful"),
    "sadness": ("sad", "unhappy", "gloomy"),
    "anger": ("angry", "furious", "cross"),
    "fear": ("afraid", "scared", "frightened"),
    "surprise": ("surprised", "amazed", "astonished"),
    "disgust": ("disgusted", "sickened", "revolted"),
    "pride": ("proud", "honoured", "triumphant"),
    "shame": ("ashamed", "guilty", "embarrassed"),
}
EMOTION_OF = {word: emotion for emotion, words in EMOTIONS.items() for word in words}
REACTIONS: dict[str, tuple[str, ...]] = {
    "joy": ("smiled", "laughed", "danced"),
    "sadness": ("cried", "wept", "sighed"),
    "anger": ("shouted", "stamped", "cursed"),
    "fear": ("trembled", "hid", "screamed"),
    "surprise": ("gasped", "stared", "blinked"),
    "disgust": ("grimaced", "gagged", "shuddered"),
    "pride": ("beamed", "boasted", "bowed"),
    "shame": ("blushed", "stammered", "cringed"),
}
# What happens to somebody, in the past tense without its subject; {p} is the possessive of that somebody.
EVENTS: dict[str, tuple[str, ...]] = {
    "joy": ("met an old friend", "got a gift", "went to a party", "heard good news", "ate {p} favourite cake"),
    "sadness": ("lost {p} dog", "said farewell to a friend", "missed {p} home", "heard bad news", "broke {p} lamp"),
    "anger": ("was cheated", "was pushed by a bully", "was robbed", "was called a fool", "had to wait for hours"),
    "fear": ("saw a wolf outside", "heard steps in the dark", "was lost in the forest", "met a ghost",
             "stood near the cliff"),
    "surprise": ("saw a flying pig", "found gold in the garden", "heard a cat speak", "met a twin",
                 "saw snow in summer"),
    "disgust": ("ate a rotten egg", "stepped in mud", "smelled old fish", "drank sour milk", "found a rat in the soup"),
    "pride": ("won the race", "passed the exam", "built a boat", "got a medal", "saved a child"),
    "shame": ("told a lie", "stole a book", "forgot {p} promise", "hurt a friend", "failed to help"),
}  # fmt: skip


def article(noun: str) -> str:
    """`noun` after its indefinite article: "an owl", "a robin"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def ancestors(noun: str) -> list[str]:
    """The kinds above a member or a kind, nearest first: robin -> bird, animal, organism, thing."""
    chain: list[str] = []
    above = KIND_OF.get(noun) or PARENT.get(noun)
    while above:
        chain.append(above)
        above = PARENT.get(above)
    return chain


# Words of the sentence frames that no table above holds. A test checks that nothing in a large sample is missing.
FRAME_WORDS = """
+ , : = ? after ago all am and are assistant back be because before between brief but came can chose colder comes count
day days diary digit do earlier end every feel followed from gave goodbye grow guess has hello helpful here hour how i
if is kind last later less longer make makes me month months more morning moved my names next no not now o'clock odd
of or people please put season shorter so some tell than thank thanks that then there this time today tomorrow took
warmer we welcome were what when where which who why with yes yesterday you your
""".split()


def vocabulary() -> list[str]:
    """All words, specials first, then the others in alphabetical order: the position is the token id."""
    tables: list[str] = [*WEEKDAYS, *MONTHS, *NUMBERS, *DIGITS, *SEASONS, *CHORES, *PARENT, *PARENT.values()]
    tables += [*MEMBERS, *NAMES, *PART.values(), *ACTION.values(), *ADJECTIVES, *OBJECTS, *PLACES]
    tables += [*PRONOUN.values(), *POSSESSIVE.values(), *FRAME_WORDS]
    for table in (WEATHER, COLOURS, DEEDS, HAUNTS, EMOTIONS, REACTIONS, EVENTS):
        for phrases in table.values():
            tables += [word for phrase in phrases for word in phrase.format(p="his").split()]
    for sentence in FILLERS:
        tables += sentence.split()
    return [*SPECIALS, *sorted(set(tables))]


def as_dict() -> dict[str, object]:
    """What `lexicon.json` holds: the known latent structure, for geometry and feature work downstream."""
    kinds: dict[str, object] = {
        kind: {"parent": PARENT[kind], "members": list(members), "part": PART[kind], "action": ACTION[kind]}
        for kind, members in KINDS.items()
    }
    upper = {kind: {"parent": parent, "members": []} for kind, parent in PARENT.items() if kind not in KINDS}
    return {
        "weekdays": WEEKDAYS,
        "months": MONTHS,
        "hours": HOURS,
        "numbers": NUMBERS,
        "digits": DIGITS,
        "seasons": {season: [m for m in MONTHS if SEASON_OF[m] == season] for season in SEASONS},
        "months_by_warmth": WARMTH,
        "lengthening_months": LENGTHENING,
        "chores": CHORE_MONTHS,
        "kinds": {**kinds, **upper, "thing": {"parent": None, "members": []}},
        "emotions": {
            e: {"words": EMOTIONS[e], "reactions": REACTIONS[e], "events": [v.format(p="his") for v in EVENTS[e]]}
            for e in EMOTIONS
        },
        "names": {"he": HE_NAMES, "she": SHE_NAMES},
        "objects": OBJECTS,
        "places": PLACES,
        "descriptions": {k: {"colours": COLOURS[k], "deeds": DEEDS[k], "haunts": HAUNTS[k]} for k in ANIMAL_KINDS},
        "specials": SPECIALS,
    }
