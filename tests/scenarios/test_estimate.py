"""The estimate of a scenario's cost against what capturing it writes."""

from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoConfig

from src.models import wrap_model
from src.models.sizes import sizes_of
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.capturing.templates import Renderer, write_script
from src.scenarios.estimate import conversation_cost, references_cost
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Message, Prompt, ReferenceState
from src.scenarios.storage.run_folder import write_conversation, write_references
from tests.fixtures.scenario_project import chat_tokenizer
from tests.fixtures.tiny_models import D_MODEL, N_LAYERS, N_VOCAB, model_config, tiny_model

MESSAGES = [
    Message(role="system", content="w10 w11"),
    Message(role="user", content="w12 w13 w14"),
    Message(role="assistant", content="w15"),
    Message(role="user", content="w16 w17"),
]
NEW = 5


@pytest.fixture(scope="module")
def model():
    module = tiny_model("llama")
    module.generation_config.eos_token_id = None  # replies reach the limit
    return wrap_model(module, model_config())


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = chat_tokenizer()
    tokenizer.eos_token = None
    return tokenizer


def bytes_of_arrays(path: Path) -> int:
    with safe_open(path, "pt") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


SETTINGS = [
    CaptureSettings(),
    CaptureSettings(preset="last_token"),
    CaptureSettings(preset="full", positions=["end", "answer", "mean"]),
    CaptureSettings(layers=[1], store_dtype="float32", attention_weights=False),
    CaptureSettings(layers=[0, 2], qkv=False, mlp=False, logits=False),
]


@pytest.mark.parametrize("at_each", [False, True])
@pytest.mark.parametrize("capture", SETTINGS)
def test_states_need_the_bytes_that_were_told(model, tokenizer, tmp_path, capture, at_each):
    prompt = Prompt(messages=MESSAGES, run_at_each_message=at_each)
    found = capture_conversation(model, tokenizer, "talk", prompt, GenerationSettings(max_new_tokens=NEW), capture)
    assert all(len(made.token_ids) == NEW for made in found.generations)
    write_conversation(tmp_path, found)
    sizes = sizes_of(model.module.config)
    assert sizes is not None
    afters = [1, 2, 3, 4] if at_each else [4]
    script = write_script(Renderer(tokenizer), MESSAGES, "talk")
    cost = conversation_cost(script, afters, NEW, sizes, capture)
    states = sum(size for part, size in cost.n_bytes.items() if part != "text")
    # how the template ends a reply is not known beforehand: a few keys more or less
    assert states == pytest.approx(bytes_of_arrays(tmp_path / "states.safetensors"), rel=0.02)
    text = sum(path.stat().st_size for path in tmp_path.iterdir() if path.suffix != ".safetensors")
    assert cost.n_bytes["text"] == pytest.approx(text, rel=0.5)


@pytest.mark.parametrize("capture", SETTINGS)
def test_references_need_the_bytes_that_were_told(model, tokenizer, tmp_path, capture):
    states = [ReferenceState(label=f"state_{i}", messages=MESSAGES[1 : 2 + i]) for i in range(3)]
    write_references(tmp_path, capture_references(model, tokenizer, states, capture))
    sizes = sizes_of(model.module.config)
    assert sizes is not None
    lengths = [len(Renderer(tokenizer).ids(state.conversations[0], header=True)) for state in states]
    told = references_cost(lengths, sizes, capture).n_bytes["references"]
    # ends have a header less to look at
    assert told == pytest.approx(bytes_of_arrays(tmp_path / "states.safetensors"), rel=0.02)


def test_tokens_are_those_of_the_passes(tokenizer):
    """Counted by hand: BOS, then role, words and end of each message; a header is one token."""
    sizes = sizes_of(AutoConfig.for_model("llama"))
    assert sizes is not None
    script = write_script(Renderer(tokenizer), MESSAGES, "talk")
    ends = [5, 10, 13, 17]
    one = conversation_cost(script, [4], NEW, sizes, CaptureSettings(positions=["end", "answer"]))
    # headers after messages 1 to 3 (that of message 2 is the assistant's own); new tokens but the last; about 4 behind
    assert one.tokens_read == 18 + 2 + (NEW - 1) + 4
    replies = 2 * (18 + NEW)
    assert one.tokens_by_prefix == sum(ends) + sum(end + 1 for end in ends) + replies + 18 + (NEW - 1)
    bare = conversation_cost(script, [], NEW, sizes, CaptureSettings(preset="last_token"))
    assert (bare.tokens_read, bare.tokens_by_prefix, bare.total - bare.n_bytes["text"]) == (18, 18, 0)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", (N_LAYERS, D_MODEL, 4, 16, 8, 24, N_VOCAB)),
        ("gpt2", (N_LAYERS, D_MODEL, 4, 16, 16, 64, N_VOCAB)),
        ("opt", (N_LAYERS, D_MODEL, 4, 16, 16, 24, N_VOCAB)),
        ("gemma2", (N_LAYERS, D_MODEL, 4, 16, 8, 24, N_VOCAB)),
        ("falcon_new", (N_LAYERS, D_MODEL, 4, 16, 8, 64, N_VOCAB)),
    ],
)
def test_sizes_are_read_from_the_config_of_a_family(family, expected):
    sizes = sizes_of(tiny_model(family).config)
    assert sizes is not None
    assert tuple(vars(sizes).values()) == expected
