"""The known latents at the words of sentences written by hand, and in the held-out corpus."""

import pytest

from testbed import facts
from testbed.ground_truth import LATENTS, Latent, Marked, find
from testbed.language import Draws, Page


def labelled(sentences: list[tuple[str, str]], topic: str = "notes") -> tuple[list[str], dict[Latent, set[int]]]:
    """Sentences with ^ before determined words, and their skills -> words, and where the latents hold."""
    page = Page(Draws(0))
    for sentence, skill in sentences:
        page.say(sentence, skill)
    return page.words, find(Marked(page.words, topic, dict(page.answers)))


def at(group: str, name: str, sentence: str, skill: str = "", topic: str = "notes") -> str:
    """The sentence with brackets around the words at which a latent holds."""
    words, found = labelled([(sentence, skill)], topic)
    places = found.get(Latent(group, name), set())
    return " ".join(f"[{word}]" if i in places else word for i, word in enumerate(words))


CARRY, NO = "carry into the tens", "no carry into the tens"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{CARRY}, at the last operand digit", "7 2 + 1 [9] = 9 1 ."),
        (f"{CARRY}, at the = sign", "7 2 + 1 9 [=] 9 1 ."),
        (f"{CARRY}, before the tens digit", "7 2 + 1 9 [=] 9 1 ."),
        (f"{CARRY}, before the tens digit", "7 2 + 8 9 = [1] 6 1 ."),
        (f"{CARRY}, before the tens digit", "9 6 + 4 = [1] 0 0 ."),
        (f"{CARRY}, at the last operand digit", "7 2 + 9 = 8 1 ."),  # after one digit another may follow
        (f"{CARRY}, at the = sign", "what is 2 + 9 [?] 1 1 ."),
        (f"{CARRY}, sum below 100, at the = sign", "7 2 + 1 9 [=] 9 1 ."),
        (f"{CARRY}, sum below 100, at the = sign", "7 2 + 8 9 = 1 6 1 ."),
        (f"{CARRY}, sum 100 or more, at the = sign", "7 2 + 8 9 [=] 1 6 1 ."),
        (f"{NO}, at the = sign", "7 2 + 1 7 [=] 8 9 ."),
        (f"{NO}, at the = sign", "7 2 + 1 8 = 9 0 ."),
        (f"{NO}, sum 100 or more, at the = sign", "7 2 + 8 1 [=] 1 5 3 ."),
        (f"{NO}, before the tens digit", "7 2 + 8 1 = [1] 5 3 ."),
        (f"{NO}, before the tens digit", "3 + 4 = 7 ."),  # there are no tens
        ("sum 100 or more, at the = sign", "7 2 + 8 1 [=] 1 5 3 ."),
    ],
)
def test_carry(name: str, expected: str) -> None:
    sentence = expected.replace("[", "").replace("]", "")
    assert at("sum's carry", name, sentence) == expected


def test_what_is_no_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="no sum"):
        labelled([("7 2 + 1 9 = 9 2 .", "")])


@pytest.mark.parametrize(
    ("group", "name", "expected"),
    [
        ("next weekday", "monday", "after sunday [comes] ^monday ."),
        ("next weekday", "sunday", "after sunday comes ^monday ."),
        ("weekdays", "sunday", "after [sunday] comes ^monday ."),
        ("direction of arithmetic", "back", "three days before friday [is] ^tuesday ."),
        ("direction of arithmetic", "forward", "one day after friday . in two days [is] ^sunday ."),
    ],
)
def test_calendar(group: str, name: str, expected: str) -> None:
    sentence = expected.replace("[", "").replace("]", "")
    assert at(group, name, sentence, "weekday arithmetic") == expected.replace("^", "")


def test_answers_belong_to_their_skill() -> None:
    hour = "two hours after one o'clock it is ^three o'clock ."
    assert at("next hour", "three", hour, "clock arithmetic").split()[6] == "[is]"
    assert "[" not in at("next hour", "three", "one and two make ^three .", "sums in words")
    assert at("next digit of a sum", "9", "7 2 + 1 9 = ^9 ^1 .", "sums") == "7 2 + 1 9 [=] 9 1 ."
    assert at("next place of a sum", "ones", "7 2 + 1 9 = ^9 ^1 .", "sums") == "7 2 + 1 9 = [9] 1 ."
    assert at("next kind", "bird", "a robin is a ^bird .", "kinds") == "a robin is [a] bird ."
    assert at("other answers", "spring", "may is in ^spring .", "month season") == "may is [in] spring ."


@pytest.mark.parametrize(
    ("emotion", "expected"),
    [
        ("sadness", "because ben [lost] [his] [dog] [,] [he] [was] [sad] [.] a robin"),
        ("joy", "ben met [an] [old] [friend] [.] [he] [was] [happy] [and] [smiled] [.] then"),
        ("surprise", "ben met a [twin] [and] [was] [amazed] [.] then"),
        ("fear", "ben met a [ghost] [.] [he] [trembled] [.] then"),
        ("pride", "why was ben [proud] [?] [he] [was] [proud] [because] [he] [built] [a] [boat] [.] after"),
        ("fear", "ben was [lost] [in] [the] [forest] [.] [he] [hid] [.] anna hid the key in the hall ."),
        ("anger", "ben had [to] [wait] [for] [hours] [,] [so] [he] [was] [cross] [.] ben had the key ."),
    ],
)
def test_emotion_of_a_passage(emotion: str, expected: str) -> None:
    sentence = expected.replace("[", "").replace("]", "")
    assert at("emotion of the passage", emotion, sentence) == expected


def test_words_and_consequences_of_emotions() -> None:
    sentence = "ben met a ghost . ^he was ^scared and trembled ."
    assert at("next emotion", "fear", sentence, "emotions").split()[6] == "[was]"
    assert at("words of emotions", "fear", sentence).split()[7] == "[scared]"
    assert at("reactions", "fear", sentence).split()[9] == "[trembled]"
    assert at("next in a story", "he", sentence, "emotions").split()[4] == "[.]"
    assert "[" not in at("reactions", "fear", "ben hid the key in the hall .")


def test_people_things_and_places() -> None:
    story = "anna took the key . ^she put the ^key in the box . where was the key ? the key was in the ^box ."
    for name, place in {"woman's name": {0}, "person": {0}, "thing": {3, 8, 16, 19}, "place": {11, 23}}.items():
        words, found = labelled([(story, "recall")], "stories")
        assert found[Latent("people, things, places", name)] == place, name
    assert found[Latent("referent of a pronoun", "anna")] == {5}
    assert found[Latent("next in a story", "place")] >= {22}
    assert words[22] == "the"
    assert found[Latent("kinds", "container")] == {11, 23}
    assert found[Latent("topics", "stories")] == set(range(len(words)))


def test_kinds() -> None:
    sentence = "some fish names : cod , tuna ."
    assert at("kinds", "fish", sentence) == "some fish names : [cod] , [tuna] ."
    assert at("kinds", "animal", sentence) == "some fish names : [cod] , [tuna] ."


def test_echoes() -> None:
    words, found = labelled(
        [
            ("ben said : key hall . anna said : ^key ^hall .", "echoes"),
            ("tom chose : oak pen , bee cup .", ""),
            ("leo said : oak pen .", ""),
        ]
    )
    first = words.index("leo") + 3
    assert found[Latent("echoes", "said first")] == {3, 4, first, first + 1}
    assert found[Latent("echoes", "said again")] == {9, 10}
    assert found[Latent("echoes", "next is copied")] == {8, 9}
    assert found[Latent("position in an echo", "2")] == {4, 10, first + 1}
    assert [words[i] for i in sorted(found[Latent("echoes", "first of a pair")])] == ["oak", "bee"]
    assert [words[i] for i in sorted(found[Latent("echoes", "second of a pair")])] == ["pen", "cup"]


def test_latents_of_the_corpus_are_known_and_agree_with_the_generators(heldout: list[dict]) -> None:
    names = set(LATENTS)
    assert len(names) == len(LATENTS)
    seen: dict[Latent, int] = {}
    for record in heldout[:400]:
        words = record["text"].split(" ")
        found = find(Marked(words, record["topic"], dict(record["labels"]["answers"])))
        assert set(found) <= names
        for latent, places in found.items():
            assert 0 <= min(places) <= max(places) < len(words)
            seen[latent] = seen.get(latent, 0) + len(places)
        # every word of a feeling is inside a passage of its emotion
        for latent, places in found.items():
            if latent.group in ("words of emotions", "reactions"):
                assert places <= found[Latent("emotion of the passage", latent.name)]
        if record["topic"] == "sums":
            answers = {i - 1 for i, skill in record["labels"]["answers"] if skill == "sums"}
            digits = set().union(*(found.get(Latent("next digit of a sum", d), set()) for d in "0123456789"))
            places_of = set().union(
                *(found.get(Latent("next place of a sum", p), set()) for p in ("ones", "tens", "hundreds"))
            )
            assert answers == digits == places_of
    assert {latent.group for latent in seen} == {latent.group for latent in LATENTS}


def test_generated_sums_have_one_carry_each() -> None:
    page = Page(Draws("carries"))
    facts.sums(page)
    found = find(Marked(page.words, "sums", dict(page.answers)))
    signs = {i for i, word in enumerate(page.words) if word == "="}
    carry = found.get(Latent("sum's carry", f"{CARRY}, at the = sign"), set())
    none = found.get(Latent("sum's carry", f"{NO}, at the = sign"), set())
    assert carry.isdisjoint(none)
    assert signs <= carry | none
