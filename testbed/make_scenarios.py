"""Write the scenarios: `python testbed/make_scenarios.py` makes scenarios/*.yaml.

Every conversation has 20 messages (system, ten of the user, nine of the assistant); the model makes the tenth answer.
All sentences come from the language's own generators and tables. Of the five events of an emotion, the first, and of
its three words, the first, belong to the conversations; the references hold the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, the repository's root is not on the path

from testbed import chats  # noqa: E402
from testbed.language import Draws  # noqa: E402
from testbed.lexicon import EMOTIONS, EVENTS, KIND_OF, PARENT  # noqa: E402

Said = dict[str, str]  # {role, content} and perhaps {label}
TURNS = 10
SYSTEM: Said = {"role": "system", "content": chats.SYSTEM_MESSAGES["plain"]}
OPENINGS = ("i {} .", "today i {} .", "guess what , i {} .", "i {} this morning .")
REPLIES = ("you feel {word} .", "that makes you {word} .", "you are {word} because you {event} .")
RESIDUAL_ONLY = dict.fromkeys(("attention_weights", "qkv", "mlp", "logits"), False)
CONTROL: dict[str, Any] = {"name": "control", "control": True}
MATCHED = """\
# Example i of every label has the same frame, so that a frame can't tell a label. Whoever leaves texts out must leave
# out example i of all labels at once: a text left out alone is told from its label by its own frame, which the other
# labels still have.
"""


def user(content: str, label: str | None = None) -> Said:
    """A message of the user."""
    return {"role": "user", **({"label": label} if label else {}), "content": content}


def answer(content: str, label: str | None = None) -> Said:
    """A message of the assistant."""
    return {**user(content, label), "role": "assistant"}


# --- feelings -----------------------------------------------------------------------------------------------------
def mine(emotion: str, event: int) -> str:
    """An event as the user tells it: "lost my dog"."""
    return EVENTS[emotion][event].format(p="my")


def yours(emotion: str, event: int) -> str:
    """An event as the assistant repeats it: "lost your dog", "were robbed"."""
    told = EVENTS[emotion][event].format(p="your")
    return told.replace("was ", "were ", 1) if told.startswith("was ") else told


def feelings(seed: str) -> list[Said]:
    """Eight events, one of each emotion, in a random order; a question about the fourth and one about the seventh."""
    draws = Draws(seed)
    said = [SYSTEM]
    for place, emotion in enumerate(draws.sample(tuple(EMOTIONS), len(EMOTIONS))):
        word = EMOTIONS[emotion][0]
        said.append(user(draws.choice(OPENINGS).format(mine(emotion, 0)), emotion))
        said.append(answer(draws.choice(REPLIES).format(word=word, event=yours(emotion, 0)), emotion))
        if place == 3:
            said += [user("how do i feel ?"), answer(f"you feel {word} .", emotion)]
        elif place == 6:
            said += [user("why is that ?"), answer(f"because you {yours(emotion, 0)} .", emotion)]
    return said[: 2 * TURNS]


def mixed(seed: str) -> list[Said]:
    """Five events of different emotions and five questions about facts, in a random order."""
    draws = Draws(seed)
    emotions, facts = draws.sample(tuple(EMOTIONS), TURNS // 2), exchanges(f"{seed} facts", chats.ask_fact)
    said = [SYSTEM]
    for place in draws.sample(range(TURNS), TURNS):
        if place < len(emotions):
            emotion = emotions[place]
            told = draws.choice(OPENINGS).format(mine(emotion, 0)), draws.choice(REPLIES)
            reply = told[1].format(word=EMOTIONS[emotion][0], event=yours(emotion, 0))
            said += [user(told[0], emotion), answer(reply, emotion)]
        else:
            question, reply, _ = next(facts)
            said += [user(question), answer(reply)]
    return said[: 2 * TURNS]


def of_emotion(emotion: str) -> list[list[Said]]:
    """Texts of an emotion: four events without its word, four with a word and without an event."""
    _, first, second = EMOTIONS[emotion]
    told = [[user(opening.format(mine(emotion, i + 1)))] for i, opening in enumerate(OPENINGS)]
    return [
        *told,
        [user(f"today i was {first} .")],
        [user(f"why do i feel {second} ?")],
        [user("how do i feel ?"), answer(f"you feel {second} .")],
        [user("hello ."), answer(f"that makes you {first} .")],
    ]


NO_EMOTION = [
    [user("what has a robin ?")],
    [user("what month comes after june ?")],
    [user("count from two to five .")],
    [user("anna took the map . she put the map in the hall .")],
    [user("it was raining . the house was quiet .")],
    [user("hello ."), answer("hello , how can i help you ?")],
    [user("what is 2 + 3 ?"), answer("it is 5 .")],
    [user("is an oak a tree ?"), answer("yes , an oak is a tree .")],
]


# --- questions ----------------------------------------------------------------------------------------------------
def exchanges(seed: str, ask: Callable[[chats.Talk], None]) -> Iterator[tuple[str, str, str]]:
    """Questions, each once, their answers, and their skill; without end."""
    known: set[str] = set()
    for i in count():
        talk = chats.Talk(Draws(f"{seed} {i}"))
        ask(talk)
        question, reply = (message["content"] for message in talk.messages)
        if question not in known:
            known.add(question)
            yield question, reply, talk.page.answers[0][1]


def neutral(seed: str, like: list[Said]) -> list[Said]:
    """Questions about facts, each turn as long as another conversation's."""
    found = exchanges(seed, chats.ask_fact)
    pool = [next(found) for _ in range(300)]
    said = [SYSTEM]
    lengths = [len(message["content"].split()) for message in like[1:]]
    for place in range(0, len(lengths), 2):
        wanted = lengths[place : place + 2]
        best = min(pool, key=lambda made: sum(abs(len(t.split()) - n) for t, n in zip(made, wanted, strict=False)))
        pool.remove(best)
        said += [user(best[0]), answer(best[1])][: len(wanted)]
    return said


SUBJECTS = {"chat weekday": "day", "chat month": "month", "chat clock": "hour"}


def subject(question: str, skill: str) -> str | None:
    """What a question is about: day, month, hour, animal, plant or artefact; None = something else."""
    if skill == "chat kinds":
        member = next(word for word in question.split() if word in KIND_OF)
        return PARENT[KIND_OF[member]]
    return SUBJECTS.get(skill)


def direction(question: str, skill: str) -> str:
    """Which way a question asks to count."""
    return "backwards" if " back " in question else "forwards"


def sorted_by(
    name: Callable[[str, str], str | None], found: Iterator[tuple[str, str, str]], labels: list[str], n: int
) -> dict[str, list[tuple[str, str]]]:
    """The first n exchanges of each label."""
    kept: dict[str, list[tuple[str, str]]] = {label: [] for label in labels}
    while any(len(pairs) < n for pairs in kept.values()):
        question, reply, skill = next(found)
        label = name(question, skill)
        if label is not None and len(kept[label]) < n and not question.startswith("please"):
            kept[label].append((question, reply))
    return kept


def questions_and_references(
    seed: str, ask: Callable[[chats.Talk], None], name: Callable[[str, str], str | None], labels: list[str]
) -> tuple[list[Said], list[dict[str, Any]]]:
    """A conversation that asks about the labels in a random order, and references: four questions, four answered."""
    draws = Draws(seed)
    each = -(-TURNS // len(labels))
    pairs = sorted_by(name, exchanges(seed, ask), labels, each + 8)
    said = [SYSTEM]
    for label in draws.sample(labels * each, TURNS):
        question, reply = pairs[label].pop()
        said += [user(question, label), answer(reply, label)]
    references = [
        {
            "label": label,
            "examples": examples([[user(q), answer(a)][: 1 + i // 4] for i, (q, a) in enumerate(pairs[label][:8])]),
        }
        for label in labels
    ]
    return said[: 2 * TURNS], references


# --- files --------------------------------------------------------------------------------------------------------
def examples(texts: list[list[Said]]) -> list[dict[str, Any]]:
    """Texts in the form of the file."""
    return [{"messages": text} for text in texts]


def scenario(name: str, prompt: list[dict[str, Any]], references: list[dict[str, Any]], **capture: Any) -> str:
    """A scenario as YAML."""
    values = {
        "name": name,
        "model": {"id": "testbed_chat", "dtype": "float32"},
        "prompt": prompt,
        "generation": {"max_new_tokens": 16},
        "capture": {"preset": "message_ends", "positions": ["end", "answer", "mean"], **capture},
        "reference_states": references,
    }
    return yaml.dump(values, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=1000)


class _Plain(yaml.SafeDumper):
    """Without anchors: a message that comes twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def references_of_emotions() -> list[dict[str, Any]]:
    """All emotions, and texts without any."""
    found: list[dict[str, Any]] = [{"label": name, "examples": examples(of_emotion(name))} for name in EMOTIONS]
    return [*found, {"label": "neutral", "neutral": True, "examples": examples(NO_EMOTION)}]


def unlabelled(said: list[Said]) -> list[Said]:
    """The same messages, of which nothing is known."""
    return [{"role": message["role"], "content": message["content"]} for message in said]


def emotions_file() -> str:
    """One conversation with every emotion, and a neutral one."""
    talk = feelings("feelings 0")
    return (
        "# A conversation about feelings, and one about facts to compare it with.\n"
        + MATCHED
        + scenario(
            "emotions",
            [{"name": "feelings", "orders": 12, "messages": talk}, {**CONTROL, "messages": neutral("control", talk)}],
            references_of_emotions(),
        )
    )


def talks_file() -> str:
    """Many conversations, for intervals over conversations."""
    prompts: list[dict[str, Any]] = [{"name": f"talk_{i}", "messages": mixed(f"talk {i}")} for i in range(24)]
    for i in range(4):
        prompts.append(
            {"name": f"control_{i}", "control": True, "messages": neutral(f"control {i}", mixed(f"talk {i}"))}
        )
    return (
        "# Many conversations of five feelings and five facts each, and some of facts alone.\n"
        + MATCHED
        + scenario("talks", prompts, references_of_emotions(), **RESIDUAL_ONLY)
    )


def fading_file() -> str:
    """Conversations that differ in their first turn alone, three times."""
    prompts = []
    for i in range(3):
        filler = neutral(f"filler {i}", feelings("feelings 0"))
        for emotion in EMOTIONS:
            told = user(f"i {mine(emotion, 0)} .", emotion), answer(f"you feel {EMOTIONS[emotion][0]} .", emotion)
            messages = [SYSTEM, *told, *filler[3:-1], user("how do i feel ?")]
            prompts.append({"name": f"{emotion}_{i}", "messages": messages})
        prompts.append({"name": f"control_{i}", "control": True, "messages": filler})
    return (
        "# A feeling, eight turns about facts, a question. Those of one number differ in the first turn alone.\n"
        + MATCHED
        + scenario("fading", prompts, references_of_emotions(), **RESIDUAL_ONLY)
    )


def questions_file(
    name: str, ask: Callable[[chats.Talk], None], label: Callable[[str, str], str | None], labels: list[str]
) -> str:
    """Questions of several kinds, and a conversation about feelings to compare with."""
    said, references = questions_and_references(name, ask, label, labels)
    prompts = [
        {"name": "questions", "orders": 12, "messages": said},
        {**CONTROL, "messages": unlabelled(feelings(f"control of {name}"))},
    ]
    about_feelings = {"label": "neutral", "neutral": True, "examples": examples(of_emotion("joy"))}
    return f"# Questions, with labels: {', '.join(labels)}.\n" + scenario(name, prompts, [*references, about_feelings])


def files() -> dict[str, str]:
    """All scenario files: name -> text."""
    subjects = [*SUBJECTS.values(), "animal", "plant", "artefact"]
    return {
        "emotions": emotions_file(),
        "talks": talks_file(),
        "fading": fading_file(),
        "facts": questions_file("facts", chats.ask_fact, subject, subjects),
        "counting": questions_file("counting", chats.ask_count, direction, ["forwards", "backwards"]),
    }


if __name__ == "__main__":
    (HERE / "scenarios").mkdir(exist_ok=True)
    for name, text in files().items():
        (HERE / "scenarios" / f"{name}.yaml").write_text(text)
        print(f"scenarios/{name}.yaml: {len(text)} bytes")
