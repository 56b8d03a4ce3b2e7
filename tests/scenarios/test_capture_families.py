"""States and tokens of one pass with branches are those of plain passes and of `generate`, in every family."""

import warnings

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from src.models import LanguageModel, wrap_model
from src.models.continuing import continuation_of
from src.scenarios.capturing import passes
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.scenario import CaptureSettings, Example, GenerationSettings, Prompt, ReferenceState
from tests.fixtures import tiny_models
from tests.fixtures.naive_capture import generated, largest_difference, own_pass
from tests.fixtures.tiny_chats import talk, word_tokenizer
from tests.fixtures.tiny_models import FAMILIES, model_config, tiny_model

CAUSAL = [family for family in FAMILIES if family not in ("bert", "distilbert", "t5")]
EVERYTHING = CaptureSettings(positions=["end", "answer", "mean"], store_dtype="float32")
PROMPT = Prompt(messages=talk("w3 w4 w5", "w6 w7", "w8", system="w9 w10"))
STATE_SPACE = {"hidden_size": 16, "num_hidden_layers": 3, "state_size": 4, "vocab_size": 97}


def ended_by_nothing(module: PreTrainedModel) -> LanguageModel:
    module.generation_config.eos_token_id = None
    return wrap_model(module, model_config())


def check(model: LanguageModel, prompt: Prompt = PROMPT, n_tokens: int = 4, capture: CaptureSettings = EVERYTHING):
    """Snapshots, steps and tokens of a conversation against plain passes."""
    tokenizer = word_tokenizer()
    settings = GenerationSettings(max_new_tokens=n_tokens)
    conversation = capture_conversation(model, tokenizer, "talk", prompt, settings, capture)
    for made in conversation.generations:
        spoken = [{"role": m.role, "content": m.content} for m in conversation.messages[: made.after]]
        ids = tokenizer.apply_chat_template(spoken, add_generation_prompt=True, return_dict=False)
        assert made.token_ids == generated(model, ids, n_tokens)
        for step in made.steps:
            truth = own_pass(model, [*ids, *made.token_ids[: step.step]])
            assert largest_difference(made.rows, step.step, truth) < 1e-5
    n = len(prompt.messages)
    assert len(conversation.snapshots) == len(capture.positions) * (n + len(conversation.generations))
    for row, snapshot in enumerate(conversation.snapshots):
        count = snapshot.message + 1 if snapshot.message < n else conversation.generations[snapshot.message - n].after
        messages = conversation.messages[:count]
        if snapshot.message >= n:
            messages = [*messages, conversation.messages[snapshot.message]]
        spoken = [{"role": m.role, "content": m.content} for m in messages]
        header = snapshot.position == "answer"
        ids = tokenizer.apply_chat_template(spoken, add_generation_prompt=header, return_dict=False)
        first = None
        if snapshot.position == "mean":
            before = tokenizer.apply_chat_template(spoken[:-1], return_dict=False) if spoken[:-1] else []
            first = max(len(before), 1)
        else:
            assert snapshot.token == len(ids) - 1
        assert largest_difference(conversation.snapshot_rows, row, own_pass(model, ids, first)) < 1e-5
    return conversation


@pytest.mark.parametrize("family", CAUSAL)
def test_snapshots_and_generation_equal_plain_passes(family):
    model = ended_by_nothing(tiny_model(family))
    conversation = check(model)
    assert continuation_of(model).cached
    assert conversation.tokens[0] == "<bos>"
    assert [conversation.tokens[end] for end in conversation.message_ends] == ["<end>"] * 4


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_generations_after_each_message_do_not_disturb_each_other(family):
    prompt = PROMPT.model_copy(update={"run_at_each_message": True})
    conversation = check(ended_by_nothing(tiny_model(family)), prompt, 3, CaptureSettings(store_dtype="float32"))
    assert [made.after for made in conversation.generations] == [1, 2, 3, 4]
    assert [run.name for run in conversation.runs()] == [f"talk_msg{n}of4" for n in range(1, 5)]


def test_windows_shorter_than_the_conversation():
    model = ended_by_nothing(tiny_model("mistral", sliding_window=4))
    assert continuation_of(model).cached
    assert not continuation_of(model).stacked  # a hole in the keys shifts the window
    assert not continuation_of(model).packed  # a mask of one's own has no windows
    check(model)


def test_windows_beyond_the_probe_are_noticed():
    model = ended_by_nothing(tiny_model("mistral", sliding_window=16))
    known = continuation_of(model)
    assert (known.stacked, known.packed) == (True, True)
    check(model)
    assert (known.stacked, known.packed) == (False, False)


@pytest.mark.parametrize("ways", [{"packed": False}, {"packed": False, "stacked": False}])
def test_models_that_do_not_take_branches_together(ways):
    model = ended_by_nothing(tiny_model("llama"))
    for way, taken in ways.items():
        setattr(continuation_of(model), way, taken)
    check(model)


def test_many_branches_take_several_passes(monkeypatch):
    monkeypatch.setattr(passes, "_PACKED_TOKENS", 5)
    check(ended_by_nothing(tiny_model("llama")))


def test_windows_that_only_the_reply_goes_beyond(monkeypatch):
    """They are not noticed in the conversation."""
    together = []
    for way in ("_packed", "_stacked"):
        plain = getattr(passes.Reader, way)
        noted = lambda *given, plain=plain: together.append(given) or plain(*given)  # noqa: E731
        monkeypatch.setattr(passes.Reader, way, noted)
    model = ended_by_nothing(tiny_model("mistral", sliding_window=24))
    conversation = check(model, n_tokens=8)
    assert len(conversation.token_ids) < 24 < conversation.generations[0].steps[-1].seq_len + 3
    assert (continuation_of(model).packed, len(together)) == (True, 2)  # both are tried on the conversation


def test_positions_that_scale_with_the_length_are_noticed():
    scaled = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model = ended_by_nothing(tiny_model("llama", rope_parameters=scaled, max_position_embeddings=16))
    with pytest.warns(UserWarning, match="passes of their own"):
        capture_conversation(model, word_tokenizer(), "talk", PROMPT, GenerationSettings(max_new_tokens=2), EVERYTHING)
    assert not continuation_of(model).causal


def test_state_space_models_read_each_beginning_by_itself():
    config = AutoConfig.for_model("mamba", **STATE_SPACE)
    model = ended_by_nothing(AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conversation = check(
            model, n_tokens=2, capture=CaptureSettings(positions=["end", "answer"], store_dtype="float32")
        )
    assert not continuation_of(model).cached
    assert {"attn_out", "attention", "q"} <= set(conversation.notes["not_offered"])


def test_a_mixture_of_experts_has_no_single_neurons():
    keys = tiny_models._GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    config = AutoConfig.for_model("qwen3_moe", **keys, head_dim=4)
    model = ended_by_nothing(AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval())
    with pytest.warns(UserWarning, match=r"capture\.mlp: left out"):
        conversation = check(model)
    assert "mlp_act" in conversation.notes["not_offered"]
    assert "mlp_act" not in conversation.snapshot_rows


@pytest.mark.parametrize("family", CAUSAL)
def test_references_read_together_equal_single_passes(family):
    model, tokenizer = ended_by_nothing(tiny_model(family)), word_tokenizer()
    texts = ["w3", "w4 w5 w6 w7 w8", "w9 w10"]
    states = [
        ReferenceState(label="several", examples=[Example(messages=talk(text)) for text in texts]),
        ReferenceState(label="one", messages=talk("w11 w12", "w13", system=None), neutral=True),
    ]
    references = capture_references(model, tokenizer, states, EVERYTHING)
    assert [(text.label, text.example, text.neutral) for text in references.texts] == [
        ("several", 0, False),
        ("several", 1, False),
        ("several", 2, False),
        ("one", 0, True),
    ]
    for row, messages in enumerate([*(talk(text) for text in texts), states[1].messages]):
        spoken = [{"role": m.role, "content": m.content} for m in messages]
        before = tokenizer.apply_chat_template(spoken[:-1], return_dict=False)
        for position, rows in references.rows.items():
            header, first = position == "answer", len(before) if position == "mean" else None
            ids = tokenizer.apply_chat_template(spoken, add_generation_prompt=header, return_dict=False)
            assert largest_difference(rows, row, own_pass(model, ids, first)) < 1e-5
        assert references.texts[row].n_tokens == len(ids) + (position != "answer") * 2
