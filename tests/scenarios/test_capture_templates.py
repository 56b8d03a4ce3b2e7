"""Conversations are read with the very tokens of the chat template, whatever it does to their beginnings."""

import pytest
from tests.fixtures.naive_capture import generated, largest_difference, own_pass
from tests.fixtures.tiny_chats import CHATML, REWRITING, STRICT, byte_tokenizer, talk, word_tokenizer
from tests.fixtures.tiny_models import model_config, tiny_model

from src.errors import StrataError
from src.models import wrap_model
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.capturing.shared_text import SharedText
from src.scenarios.capturing.templates import Renderer, write_script
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Message, Prompt, ReferenceState

EXACT = CaptureSettings(positions=["end", "answer", "mean"], store_dtype="float32")
SHORT = GenerationSettings(max_new_tokens=3)


@pytest.fixture(scope="module")
def model():
    module = tiny_model("llama", vocab_size=300, max_position_embeddings=256)
    module.generation_config.eos_token_id = None
    return wrap_model(module, model_config())


def rendered(tokenizer, messages, header):
    spoken = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(spoken, add_generation_prompt=header, return_dict=False)


CONTENTS = ["xy", "", " hey ", "\n\nx", "a\ud83d", "<end> a", "日本 🙂", "<role"]


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), word_tokenizer(), word_tokenizer(CHATML)])
def test_beginnings_have_the_ids_that_the_tokenizer_gives_each_alone(tokenizer):
    # the newline of ChatML's header merges with an x that follows it: that beginning is no beginning of the whole
    messages = talk(*[text.replace("\ud83d", "?") for text in CONTENTS], "x")
    script = write_script(Renderer(tokenizer), messages, "talk")
    for count in range(1, len(messages) + 1):
        assert script.ends[count - 1] == rendered(tokenizer, messages[:count], False)
        assert script.answers[count - 1] == rendered(tokenizer, messages[:count], True)


def test_texts_are_tokenised_whole_where_an_added_token_ends_otherwise():
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<end>x"], special_tokens=True)
    shared = SharedText(tokenizer, "a<end>yhey")
    for text in ("a<end>xhey", "a<end>he", "a<end>yhey", "b", "", "a<end", "a<end>yhey<role>"):
        assert shared.ids(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_one_bos(model):
    tokenizer = word_tokenizer()
    conversation = capture_conversation(model, tokenizer, "talk", Prompt(messages=talk("w3")), SHORT, EXACT)
    assert conversation.token_ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    "tokenizer", [word_tokenizer(REWRITING), byte_tokenizer(), byte_tokenizer(REWRITING)], ids=["cut", "merged", "both"]
)
def test_history_that_a_template_rewrites_is_read_as_it_was(model, tokenizer):
    prompt = Prompt(messages=talk("w3 w4", "xw5 w6", "x", "xx", "w8", system="w9"))
    conversation = capture_conversation(model, tokenizer, "talk", prompt, SHORT, EXACT)
    made = conversation.generations[0]
    assert made.token_ids == generated(model, conversation.token_ids, 3)
    assert len(conversation.snapshots) == 3 * 7
    for row, snapshot in enumerate(conversation.snapshots):
        messages = conversation.messages[: snapshot.message + 1]
        ids = rendered(tokenizer, messages, snapshot.position == "answer")
        before = rendered(tokenizer, messages[:-1], False) if messages[:-1] else []
        shared = next((i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), len(before))
        first = max(shared, 1) if snapshot.position == "mean" else None
        assert largest_difference(conversation.snapshot_rows, row, own_pass(model, ids, first)) < 1e-5
    ends = [rendered(tokenizer, prompt.messages[: count + 1], False) for count in range(6)]
    whole = conversation.token_ids
    assert conversation.message_ends == [len(end) - 1 if whole[: len(end)] == end else -1 for end in ends]


def test_beginnings_that_a_template_refuses_are_left_out_and_named(model):
    prompt = Prompt(messages=talk("w3 w4", "w5", "w6"), run_at_each_message=True)
    conversation = capture_conversation(model, word_tokenizer(STRICT), "talk", prompt, SHORT, EXACT)
    captured = {(shot.message, shot.position) for shot in conversation.snapshots}
    assert {shot for shot in captured if shot[0] < 2} == {(1, "end"), (1, "answer")}
    assert [made.after for made in conversation.generations] == [2, 3, 4]
    assert "messages 0..0" in conversation.notes["left_out"][0]
    assert "no message of a user" in conversation.notes["left_out"][0]
    run = list(conversation.runs())[-1]
    assert [message.role for message in run.messages] == ["assistant", "user", "assistant"]
    assert run.snapshots("resid_post", "mean").shape[1] == 3


def test_a_conversation_that_the_template_refuses_is_an_error_that_names_it(model):
    prompt = Prompt(messages=[Message(role="user", content="w1"), Message(role="user", content="w2")])
    with pytest.raises(StrataError, match=r"talk: the chat template .* \(roles must alternate\)"):
        capture_conversation(model, word_tokenizer(STRICT), "talk", prompt, SHORT, EXACT)
    references = [ReferenceState(label="joy", messages=prompt.messages)]
    with pytest.raises(StrataError, match="'joy': the chat template"):
        capture_references(model, word_tokenizer(STRICT), references, EXACT)


def test_without_a_template_contents_are_joined_by_newlines_and_the_model_goes_on_after_them(model):
    tokenizer = byte_tokenizer(None)
    prompt = Prompt(messages=talk("hey a", "hey", system=None))
    conversation = capture_conversation(model, tokenizer, "talk", prompt, SHORT, EXACT)
    assert conversation.token_ids == tokenizer("hey a\nhey", add_special_tokens=False)["input_ids"]
    assert "no chat template" in conversation.notes["template"]
    made = conversation.generations[0].token_ids
    assert made == generated(model, conversation.token_ids, 3)
    last = conversation.snapshots[-2]
    assert (last.message, last.position, last.token) == (2, "answer", len(conversation.token_ids) + 2)
    truth = own_pass(model, [*conversation.token_ids, *made])
    assert largest_difference(conversation.snapshot_rows, len(conversation.snapshots) - 2, truth) < 1e-5


def test_a_tokenizer_without_template_keeps_its_bos_and_leaves_its_eos(model):
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer(None)
    post = TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)])
    tokenizer.backend_tokenizer.post_processor = post
    conversation = capture_conversation(model, tokenizer, "x", Prompt(messages=talk("hey", system=None)), SHORT, EXACT)
    assert conversation.token_ids == [1, *tokenizer("hey", add_special_tokens=False)["input_ids"]]


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), byte_tokenizer(None)], ids=["chat", "plain"])
def test_odd_contents(model, tokenizer):
    messages = [Message(role="user", content=text) for text in ["a\ud83d", "", "{{ 1 / 0 }}</script>\0", "<end>"]]
    conversation = capture_conversation(model, tokenizer, "talk", Prompt(messages=messages), SHORT, EXACT)
    assert conversation.messages[0].content == "a\ufffd"
    assert conversation.messages[2].content == messages[2].content
    assert len(conversation.snapshots) == 15
    "".join(message.content for message in conversation.messages).encode()


def test_a_prompt_of_one_token(model):
    tokenizer = byte_tokenizer(None)
    conversation = capture_conversation(model, tokenizer, "talk", Prompt(messages=talk("a", system=None)), SHORT, EXACT)
    assert len(conversation.token_ids) == 1
    assert [shot.position for shot in conversation.snapshots] == ["end", "answer", "mean"] * 2
    assert conversation.generations[0].token_ids == generated(model, conversation.token_ids, 3)


def test_a_prompt_without_tokens_is_an_error(model):
    with pytest.raises(StrataError, match="talk has no tokens"):
        capture_conversation(model, byte_tokenizer(None), "talk", Prompt(messages=talk("", system=None)), SHORT, EXACT)


def test_an_empty_first_message_without_a_template_has_no_state(model):
    prompt = Prompt(messages=talk("", "hey", system=None))
    conversation = capture_conversation(model, byte_tokenizer(None), "talk", prompt, SHORT, EXACT)
    assert {shot.message for shot in conversation.snapshots} == {1, 2}
    assert conversation.message_ends[0] == -1
    assert conversation.notes["left_out"] == ["messages 0..0 have no token", "messages 0..0 have no token"]
