"""What the testbed's chat model, which has learned to name feelings, shows of them."""

import random

import pytest
import torch
from transformers import AutoTokenizer

from src.config.shared import ModelConfig
from src.models import load_model
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.comparing.centring import similarities
from src.scenarios.comparing.labelled import labelled_messages
from src.scenarios.comparing.separability import separability
from src.scenarios.scenario import CaptureSettings, Example, GenerationSettings, Message, Prompt, ReferenceState

EVENTS = {
    "joy": ("met an old friend", "got a gift", "went to a party", "heard good news", "ate my favourite cake"),
    "sadness": ("lost my dog", "said farewell to a friend", "missed my home", "heard bad news", "broke my lamp"),
    "fear": (
        "saw a wolf outside",
        "heard steps in the dark",
        "was lost in the forest",
        "met a ghost",
        "stood near the cliff",
    ),
    "disgust": ("ate a rotten egg", "stepped in mud", "smelled old fish", "drank sour milk", "found a rat in the soup"),
}
OPENINGS = ("i {} .", "today i {} .", "guess what , i {} .", "i {} this morning .")


@pytest.fixture(scope="module")
def captured():
    config = ModelConfig(
        name="testbed_chat", path="testbed/models/chat", dtype="float32", revision=None, blocks=None, stack="auto",
        attention=None, trust_remote_code=False,
    )  # fmt: skip
    model, tokenizer = load_model(config, "cpu"), AutoTokenizer.from_pretrained("testbed/models/chat")

    def texts(label):
        return [
            Example(messages=[Message(role="user", content=opening.format(event))])
            for opening, event in zip(OPENINGS, EVENTS[label], strict=False)
        ]

    plain = ["what is a birch ?", "what month comes after may ?", "what is 2 + 3 ?"]
    references = [ReferenceState(label=label, examples=texts(label)) for label in EVENTS]
    neutral = [Example(messages=[Message(role="user", content=question)]) for question in plain]
    references.append(ReferenceState(label="plain", examples=neutral, neutral=True))
    capture, draws = CaptureSettings(), random.Random(0)
    messages = []
    for label in draws.sample([*EVENTS] * 2, 8):
        event = draws.choice(OPENINGS).format(draws.choice(EVENTS[label]))
        messages += [Message(role="user", content=event, label=label), Message(role="assistant", content="i see .")]
    prompt = Prompt(messages=messages[:-1])
    made = capture_conversation(model, tokenizer, "talk", prompt, GenerationSettings(max_new_tokens=2), capture)
    return made, capture_references(model, tokenizer, references, capture)


def test_its_references_separate_where_it_is_about_to_name_the_feeling(captured):
    _, references = captured
    found = separability(references, "answer").by_source["resid_post"]
    assert found.accuracy[-1] > 0.6
    assert found.p_corrected[-1] <= 0.05


def test_the_template_is_all_that_layer_0_shows(captured):
    conversation, references = captured
    found = similarities(next(conversation.runs()), references, "answer")
    first = found.by_source["resid_pre"]
    assert first.vacuous.tolist() == [True] + [False] * 5
    torch.testing.assert_close(first.raw[0], torch.ones_like(first.raw[0]))
    assert separability(references, "answer").by_source["resid_pre"].accuracy[0] == 0.25


def test_messages_show_their_feeling(captured):
    conversation, references = captured
    found = labelled_messages([conversation], references, "answer")
    assert len(found.messages) == 8
    it = found.by_source["resid_post"]
    assert it.excess.p_corrected.min() <= 0.05
    assert it.auc.value[-1] > 0.75
