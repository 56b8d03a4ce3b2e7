"""The scenario files: what their script makes, in the chat model's words, balanced; states show them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from src.models import load_model
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.comparing.held_out import held_out_accuracy
from src.scenarios.comparing.labelled import labelled_messages
from src.scenarios.comparing.separability import separability
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Prompt, Scenario, load_scenario
from testbed.lexicon import EMOTIONS
from testbed.make_scenarios import files
from tests.fixtures.tiny_models import model_config

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


# --- what the chat model's states show: docs/guides/conversations.md --------------------------------------------------
CAPTURE = CaptureSettings(positions=["answer", "mean"], attention_weights=False, qkv=False, mlp=False, logits=False)


@pytest.fixture(scope="module")
def model():
    return load_model(model_config(path=str(TESTBED / "models" / "chat"), dtype="float32"), "cpu")


@pytest.fixture(scope="module")
def references(model, tokenizer, scenarios):
    return capture_references(model, tokenizer, scenarios["emotions"].reference_states, CAPTURE)


def test_reference_texts_of_a_feeling_lie_together_in_a_middle_layer(references):
    found = separability(references, "mean", ("resid_post",), draws=99).by_source["resid_post"]
    assert found.accuracy[2] > 0.4
    assert found.p_corrected[2] <= 0.01
    assert found.null_mean[2] < 0.2


def test_a_text_left_out_alone_finds_its_frame_under_other_labels(references):
    """Why example i of all labels must be left out together."""
    texts = references.rows["answer"].get("resid_post").double()
    rows = [row for row, text in enumerate(references.texts) if not text.neutral]
    truth = torch.arange(len(EMOTIONS)).repeat_interleave(8)
    alone, together = (
        held_out_accuracy(texts[:, rows], truth[None], len(EMOTIONS), blocks, None)[0][0]
        for blocks in (torch.arange(len(rows)), torch.arange(8).repeat(len(EMOTIONS)))
    )
    assert (alone[1:] < 1 / len(EMOTIONS)).all()
    assert together[3] > 1.5 / len(EMOTIONS)


def test_attention_of_the_last_layer_brings_the_feeling_before_an_answer(model, tokenizer, scenarios, references):
    prompts = {prompt.name: prompt for prompt in scenarios["talks"].prompt}

    def read(name):
        prompt, settings = prompts[name], GenerationSettings()
        return capture_conversation(model, tokenizer, name, prompt, settings, CAPTURE, generate=False)

    talks, controls = ([read(f"{kind}_{i}") for i in range(4)] for kind in ("talk", "control"))
    as_if = [
        replace(
            control,
            messages=[replace(m, label=n.label) for m, n in zip(control.messages, talk.messages, strict=True)],
            control=False,
        )
        for talk, control in zip(talks, controls, strict=True)
    ]
    shown, neutral = (
        labelled_messages(each, references, "answer", ("attn_out",), draws=99).by_source["attn_out"].accuracy
        for each in (talks, as_if)
    )
    assert shown.value[5] > 0.6
    assert shown.p[5] <= 0.02
    assert shown.value[5] > shown.value[0] + 0.3
    assert neutral.value[5] < 0.35


def test_the_model_recalls_a_feeling_after_a_fact_and_not_after_eight(model, tokenizer, scenarios):
    prompts = {prompt.name: prompt.messages for prompt in scenarios["fading"].prompt}

    def right(facts: int) -> int:
        total = 0
        for emotion, words in EMOTIONS.items():
            messages = prompts[f"{emotion}_0"]
            asked = Prompt(messages=[*messages[: 3 + 2 * facts], messages[-1]])
            made = capture_conversation(model, tokenizer, emotion, asked, GenerationSettings(), CAPTURE)
            total += bool({*words} & {*made.messages[-1].content.split()})
        return total

    assert right(1) == len(EMOTIONS)
    assert right(8) <= len(EMOTIONS) // 2
