"""What is kept: presets, layers, groups, dtypes."""

import pytest
import torch

from src.errors import StrataError
from src.models import wrap_model
from src.scenarios.capturing import reading
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Prompt, ReferenceState
from src.scenarios.states import RESIDUAL_SOURCES, SOURCES
from tests.fixtures.naive_capture import largest_difference, own_pass
from tests.fixtures.tiny_chats import talk, word_tokenizer
from tests.fixtures.tiny_models import model_config, tiny_model

PROMPT = Prompt(messages=talk("w3 w4", "w5", "w6 w7"))


@pytest.fixture(scope="module")
def model():
    module = tiny_model("llama")
    module.generation_config.eos_token_id = None
    return wrap_model(module, model_config())


def run(model, **capture):
    settings = GenerationSettings(max_new_tokens=3)
    return capture_conversation(model, word_tokenizer(), "talk", PROMPT, settings, CaptureSettings(**capture))


def test_the_last_token_alone(model):
    conversation = run(model, preset="last_token")
    assert conversation.snapshots == []
    assert len(conversation.snapshot_rows) == 0
    assert conversation.token_rows is None
    assert len(conversation.generations[0].rows) == 3
    assert [run.message_indices for run in conversation.runs()] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("chunk", [2**30, 20000], ids=["one pass", "several"])
def test_every_token(model, chunk, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK_BYTES", chunk)
    conversation = run(model, preset="full", store_dtype="float32", positions=["end", "mean"])
    ids, rows = conversation.token_ids, conversation.token_rows
    assert rows.sources == list(SOURCES)
    assert "logits" not in rows
    assert len(rows) == len(ids)
    for token in range(len(ids)):
        truth = own_pass(model, ids[: token + 1])
        del truth["logits"]
        assert largest_difference(rows, token, truth) < 1e-5
    for row, shot in enumerate(conversation.snapshots[:8]):
        end = conversation.message_ends[shot.message]
        before = conversation.message_ends[shot.message - 1] + 1 if shot.message else 1
        truth = own_pass(model, ids[: end + 1], before if shot.position == "mean" else None)
        assert largest_difference(conversation.snapshot_rows, row, truth) < 1e-5


def test_groups_and_layers(model):
    conversation = run(model, layers=[2, 0], qkv=False, mlp=False, attention_weights=False, logits=False)
    rows = conversation.snapshot_rows
    assert rows.layers == (0, 2)
    assert set(rows.arrays) == set(RESIDUAL_SOURCES)
    assert rows.arrays["resid_pre"].shape[0] == 2  # of both, since layer 1 is not there
    truth = own_pass(model, conversation.token_ids)
    row = [(shot.message, shot.position) for shot in conversation.snapshots].index((3, "answer"))
    for source in RESIDUAL_SOURCES:
        torch.testing.assert_close(rows.get(source)[:, row], truth[source][[0, 2]], rtol=1e-4, atol=1e-5)
    only = run(model, hidden_states=False, qkv=False, mlp=False, attention_weights=False)
    assert list(only.snapshot_rows.arrays) == ["logits"]
    with pytest.raises(StrataError, match=r"capture\.layers: tiny has layers 0\.\.2, not 3, 9"):
        run(model, layers=[1, 3, 9])


def test_residual_sources_keep_their_digits(model):
    conversation = run(model, preset="full", store_dtype="bfloat16")
    for rows in (conversation.snapshot_rows, conversation.generations[0].rows):
        for source, array in rows.arrays.items():
            assert array.dtype == (torch.float32 if source in RESIDUAL_SOURCES else torch.bfloat16), source
            assert array.is_contiguous()
    assert {array.dtype for array in conversation.token_rows.arrays.values()} == {torch.bfloat16}


def test_what_outgrows_the_dtype_stays_in_float32(model):
    module = tiny_model("llama")
    with torch.no_grad():
        module.model.layers[1].self_attn.q_proj.weight.mul_(1e6)
    conversation = run(wrap_model(module, model_config()), preset="full")
    for rows in (conversation.snapshot_rows, conversation.token_rows, conversation.generations[0].rows):
        assert rows.arrays["q"].dtype == torch.float32
        assert rows.arrays["q"].isfinite().all()
        assert rows.arrays["k"].dtype == torch.float16
    assert conversation.notes["kept_in_float32"] == {
        "snapshots": ["q"],
        "tokens": ["q"],
        "generation after message 4": ["q"],
    }
    assert "not_finite" not in conversation.notes


def test_an_encoder_can_not_go_on():
    model = wrap_model(tiny_model("bert"), model_config())
    with pytest.raises(StrataError, match="no vocabulary head"):
        run(model)


def test_reading_without_going_on(model):
    settings, capture = GenerationSettings(), CaptureSettings()
    conversation = capture_conversation(
        model, word_tokenizer(), "talk", PROMPT, settings, capture, order=[1, 0], generate=False
    )
    assert (conversation.generations, conversation.order) == ([], [1, 0])
    assert len(conversation.snapshots) == 8
    assert list(conversation.runs()) == []


def test_no_references(model):
    references = capture_references(model, word_tokenizer(), [], CaptureSettings())
    assert (references.texts, references.rows) == ([], {})


def test_many_references_are_read_in_groups_of_like_length(model, monkeypatch):
    from src.scenarios.capturing import references as module

    monkeypatch.setattr(module, "_CPU_TOKENS", 40)
    texts = [" ".join(["w3"] * n) + f" w{n}" for n in (9, 2, 12, 1, 5, 3)]
    states = [ReferenceState(label=f"r{n}", messages=talk(text)) for n, text in enumerate(texts)]
    capture = CaptureSettings(store_dtype="float32")
    found = capture_references(model, word_tokenizer(), states, capture)
    for row, state in enumerate(states):
        alone = capture_references(model, word_tokenizer(), [state], capture)
        for position in ("end", "answer"):
            for source in RESIDUAL_SOURCES:
                expected = alone.rows[position].get(source)[:, 0]
                torch.testing.assert_close(found.rows[position].get(source)[:, row], expected, rtol=1e-4, atol=1e-5)


def test_more_tokens_than_positions():
    module = tiny_model("gpt2", n_positions=16)
    with (
        pytest.warns(UserWarning, match="talk: 25 tokens, new ones included, are more than the 16 positions"),
        pytest.raises(StrataError, match="GPT2LMHeadModel"),
    ):
        run(wrap_model(module, model_config()))
