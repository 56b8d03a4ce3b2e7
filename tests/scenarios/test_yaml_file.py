"""Scenario files of strangers: what they can't do."""

import pytest

from src.errors import StrataError
from src.scenarios.scenario import load_scenario

SOUND = "name: s\nmodel: {id: m}\nprompt: {messages: [{role: user, content: hello}]}\n"


def refused(tmp_path, text: str) -> str:
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StrataError) as caught:
        load_scenario(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_sound_file_with_aliases(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "name: s\nmodel: {id: m}\nprompt:\n- messages: &m [{role: user, content: hello}]\n- messages: *m\n"
    )
    assert [prompt.messages[0].content for prompt in load_scenario(tmp_path / "s.yaml").prompt] == ["hello"] * 2


@pytest.mark.parametrize(
    ("addition", "reason"),
    [
        ("name: t\n", "'name' is there twice"),
        ("output: {dir: a, dir: b}\n", "line 4: 'dir' is there twice"),
        ("x: 2020-13-45\n", "is no YAML: month must be in"),
        ("x: !!int abc\n", "is no YAML: invalid literal"),
        ("x: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("generation: {seed: 99999999999999999999}\n", "generation.seed: 99999999999999999999 is not allowed"),
        ("x: &x [*x]\n", "an alias holds itself"),
    ],
)
def test_one_clear_message(tmp_path, addition, reason):
    assert reason in refused(tmp_path, SOUND + addition)


def test_aliases_that_unfold_without_end(tmp_path):
    layers = [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    bomb = "\n".join(["a: &a [x, x, x, x, x, x, x, x, x]", *layers, "name: s", "model: {id: m}", "prompt: *j", ""])
    assert "more than 1,000,000 values" in refused(tmp_path, bomb)


def test_large_values_are_told_in_short(tmp_path):
    """Below the limit of values too: a message does not write them all out."""
    layers = [f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]" for before, name in zip("abcd", "bcde", strict=True)]
    text = "\n".join(["a: &a [x, x]", *layers, "name: s", "model: {id: m}", "prompt: *e", ""])
    assert max(map(len, refused(tmp_path, text).splitlines())) < 400


def test_keys_can_not_speak_to_the_terminal(tmp_path):
    message = refused(tmp_path, SOUND + '"\\e[31mred\\u202e": 1\n')
    assert "\\x1b[31mred" in message
    assert all(sign.isprintable() for sign in message.replace("\n", ""))


@pytest.mark.parametrize(("written", "read"), [("a\\ud800", "a\ufffd"), ("\\ud83d\\ude42", "\U0001f642")])
def test_halves_of_characters_can_be_tokenised_and_stored(tmp_path, written, read):
    (tmp_path / "s.yaml").write_text(SOUND.replace("hello", f'"{written}"'))
    (message,) = load_scenario(tmp_path / "s.yaml").prompt[0].messages
    assert message.content == read
