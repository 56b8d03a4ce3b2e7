"""The scenario files: they are what their script makes, in the chat model's words, and balanced."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from src.scenarios.scenario import Scenario, load_scenario
from testbed.make_scenarios import files

TESTBED = Path(__file__).resolve().parents[2] / "testbed"
NAMES = ("emotions", "talks", "fading", "facts", "counting")
CHAT_ROW = 512  # tokens of a row that the chat model was trained on


@pytest.fixture(scope="module")
def scenarios() -> dict[str, Scenario]:
    return {name: load_scenario(TESTBED / "scenarios" / f"{name}.yaml") for name in NAMES}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TESTBED / "models" / "chat")


def test_files_are_what_the_script_makes():
    made = files()
    assert set(made) == set(NAMES) == {path.stem for path in (TESTBED / "scenarios").glob("*.yaml")}
    for name, text in made.items():
        assert (TESTBED / "scenarios" / f"{name}.yaml").read_text() == text


@pytest.mark.parametrize("name", NAMES)
def test_conversations_have_twenty_messages_in_known_words_that_fit_a_row(name, scenarios, tokenizer):
    scenario = scenarios[name]
    for prompt in scenario.prompt:
        roles = [message.role for message in prompt.messages]
        assert roles == ["system", *["user", "assistant"] * 9, "user"]
    texts = [prompt.messages for prompt in scenario.prompt]
    texts += [text for state in scenario.reference_states for text in state.conversations]
    for messages in texts:
        ids = tokenizer.apply_chat_template([dict(message) for message in messages], return_dict=False)
        assert tokenizer.unk_token_id not in ids
        assert len(ids) + scenario.generation.max_new_tokens < CHAT_ROW


@pytest.mark.parametrize("name", NAMES)
def test_labels_have_references_of_several_texts_and_controls_have_no_label(name, scenarios):
    scenario = scenarios[name]
    labels = {state.label for state in scenario.reference_states if not state.neutral}
    for prompt in scenario.prompt:
        used = {message.label for message in prompt.messages if message.label}
        assert not used if prompt.control else used and used <= labels
    assert all(len(state.conversations) >= 6 for state in scenario.reference_states)
    assert len({len(state.conversations) for state in scenario.reference_states if not state.neutral}) == 1


def _words(messages) -> set[str]:
    return {word for message in messages for word in message.content.split()}


def test_a_label_is_told_from_others_by_no_word_of_its_frame(scenarios):
    """Example i of all labels has one frame; events share no other word (but saw), neither do they with the rest."""
    states = [state for state in scenarios["emotions"].reference_states if not state.neutral]
    frames = [set.intersection(*(_words(state.conversations[i]) for state in states)) for i in range(8)]
    assert all(frames)
    small = {"a", "an", "the", "in", "my", "was", "to", "saw"}
    for state in states:
        own = [_words(text) - frame - small for text, frame in zip(state.conversations, frames, strict=True)]
        assert all(own)
        told, named = own[:4], own[4:]
        assert all(not a & b for i, a in enumerate(own) for b in told[:i])
        assert set.union(*told).isdisjoint(set.union(*named))
        said = _words(m for m in scenarios["emotions"].prompt[0].messages if m.label == state.label)
        assert said
        assert set.union(*own).isdisjoint(said - small)


def test_fading_conversations_of_a_set_differ_in_their_first_turn_alone(scenarios):
    prompts = [prompt for prompt in scenarios["fading"].prompt if not prompt.control]
    for number in range(3):
        of_set = [prompt.messages for prompt in prompts if prompt.name.endswith(f"_{number}")]
        assert len({tuple(message.content for message in messages[3:]) for messages in of_set}) == 1
        assert len({messages[1].label for messages in of_set}) == len(of_set) == 8


def test_control_is_as_long_as_the_conversation(scenarios, tokenizer):
    talk, control = (
        [
            len(tokenizer.apply_chat_template([dict(m) for m in prompt.messages[:i]], return_dict=False))
            for i in range(1, 21)
        ]
        for prompt in scenarios["emotions"].prompt
    )
    assert max(abs(a - b) for a, b in zip(talk, control, strict=True)) <= 6
