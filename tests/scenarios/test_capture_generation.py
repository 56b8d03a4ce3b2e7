"""Generations are those of transformers' `generate`, and their steps tell the model's own distribution."""

import math
from itertools import pairwise

import pytest
import torch

from src.errors import StrataError
from src.models import wrap_model
from src.scenarios.capturing.capture import capture_conversation
from src.scenarios.capturing.decoding import TokenNames
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Prompt
from tests.fixtures.naive_capture import generated, own_pass
from tests.fixtures.tiny_chats import byte_tokenizer, talk, word_tokenizer
from tests.fixtures.tiny_models import model_config, tiny_model

PROMPT = Prompt(messages=talk("w3 w4"))
STEPS = CaptureSettings(preset="last_token", store_dtype="float32")
NO_WARPING = {"top_k": 0, "top_p": 1.0, "temperature": 1.0}


def make(**fields):
    """A tiny model whose generation_config has these fields."""
    module = tiny_model("llama", vocab_size=300)
    module.generation_config.eos_token_id = None
    for name, value in fields.items():
        setattr(module.generation_config, name, value)
    return wrap_model(module, model_config())


def run(model, settings, capture=STEPS, **options):
    conversation = capture_conversation(model, word_tokenizer(), "talk", PROMPT, settings, capture, **options)
    return conversation, conversation.generations[0]


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 1.7}, {"top_k": 5}, {"top_p": 0.6}, {"temperature": 0.4, "top_k": 20, "top_p": 0.8}],
    ids=str,
)
def test_sampling_equals_generate_with_the_same_seed(settings):
    model = make()
    conversation, made = run(model, GenerationSettings(max_new_tokens=12, do_sample=True, seed=7, **settings))
    torch.manual_seed(7)
    expected = generated(model, conversation.token_ids, 12, do_sample=True, **NO_WARPING | settings)
    assert made.token_ids == expected


def test_sampling_goes_by_the_scenario_alone_and_disturbs_no_other_draws():
    plain, opinionated = make(), make(temperature=0.1, top_k=1, top_p=0.1, do_sample=True)
    settings = GenerationSettings(max_new_tokens=8, do_sample=True, seed=3)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    assert run(opinionated, settings)[1].token_ids == run(plain, settings)[1].token_ids
    assert torch.equal(torch.rand(3), expected)
    other = GenerationSettings(max_new_tokens=8, do_sample=True, seed=4)
    assert run(plain, other)[1].token_ids != run(plain, settings)[1].token_ids
    free = GenerationSettings(max_new_tokens=8, do_sample=True, seed=None)
    assert len({tuple(run(plain, free)[1].token_ids) for _ in range(3)}) > 1


@pytest.mark.parametrize(
    "fields",
    [
        {"repetition_penalty": 1.6},
        {"no_repeat_ngram_size": 2},
        {"suppress_tokens": [14, 15, 16]},
        {"min_new_tokens": 6, "eos_token_id": list(range(100))},
        {"bad_words_ids": [[20], [21, 22]]},
    ],
    ids=str,
)
def test_greedy_tokens_equal_generate_with_what_the_checkpoint_prescribes(fields):
    model = make(**fields)
    conversation, made = run(model, GenerationSettings(max_new_tokens=10))
    expected = generated(model, conversation.token_ids, 10)
    assert made.token_ids == expected
    assert f"generation_config.{next(iter(fields))}" in conversation.notes


def test_steps_tell_the_distribution_of_the_model():
    likeliest = run(make(), GenerationSettings(max_new_tokens=1))[1].token_ids
    model = make(suppress_tokens=likeliest)
    conversation, made = run(model, GenerationSettings(max_new_tokens=6), STEPS.model_copy(update={"top_k_probs": 4}))
    names = TokenNames(word_tokenizer())
    for step in made.steps:
        read = [*conversation.token_ids, *made.token_ids[: step.step]]
        p = own_pass(model, read)["logits"][0].softmax(-1).double()
        assert step.seq_len == len(read)
        assert step.kind == ("decode" if step.step else "prefill")
        assert step.input_token_ids == (read[-1:] if step.step else read)
        assert step.entropy == pytest.approx(float(-(p * p.log()).sum()), rel=1e-4)
        assert step.effective_vocab == pytest.approx(math.exp(step.entropy))
        assert step.top1_prob == pytest.approx(float(p.max()), rel=1e-4)
        assert math.exp(step.logprob) == pytest.approx(float(p[step.generated_token_id]), rel=1e-4)
        assert [top.id for top in step.top_k] == p.topk(4).indices.tolist()
        assert [math.exp(top.logprob) for top in step.top_k] == pytest.approx(p.topk(4).values.tolist(), rel=1e-4)
        assert [top.token for top in step.top_k] == names.of([top.id for top in step.top_k])
    assert [made.steps[0].top_k[0].id] == likeliest != made.token_ids[:1]


def test_no_top_tokens_on_request():
    made = run(make(), GenerationSettings(max_new_tokens=2), STEPS.model_copy(update={"top_k_probs": 0}))[1]
    assert [step.top_k for step in made.steps] == [[], []]


@pytest.mark.parametrize("as_list", [False, True])
def test_an_end_token_at_the_first_step(as_list):
    model = make()
    conversation, made = run(model, GenerationSettings(max_new_tokens=5))
    first = made.token_ids[0]
    model = make(eos_token_id=[first, 299] if as_list else first)
    every = CaptureSettings(positions=["end", "answer", "mean"], store_dtype="float32")
    conversation, made = run(model, GenerationSettings(max_new_tokens=5), every)
    assert made.token_ids == [first] == generated(model, conversation.token_ids, 5)
    assert made.ended
    assert len(made.steps) == len(made.rows) == 1
    assert [shot.position for shot in conversation.snapshots if shot.message == 2] == ["end", "answer", "mean"]


def test_the_tokenizers_end_token_counts_only_where_the_model_names_none():
    tokenizer, settings = word_tokenizer(), GenerationSettings()
    model = make(suppress_tokens=list(range(89, 300)))
    made = run(model, settings)[1].token_ids
    end = next(token for token in made if token != made[0])
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    conversation = capture_conversation(model, tokenizer, "talk", PROMPT, settings, STEPS)
    assert conversation.generations[0].token_ids == made[: made.index(end) + 1]
    assert "generation_config.eos_token_id" in conversation.notes
    model = make(suppress_tokens=list(range(89, 300)), eos_token_id=299)
    conversation = capture_conversation(model, tokenizer, "talk", PROMPT, settings, STEPS)
    assert conversation.generations[0].token_ids == made == generated(model, conversation.token_ids, len(made))
    assert "generation_config.eos_token_id" not in conversation.notes


def test_replies_are_decoded_whole():
    module = tiny_model("llama", vocab_size=300)
    tokenizer = byte_tokenizer()
    reply = tokenizer("日a", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    with torch.no_grad():  # each token is followed by the next one of the reply, whatever stands before
        for block in module.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        start = tokenizer("\n", add_special_tokens=False)["input_ids"][-1]
        chain = [start, *reply]
        module.model.embed_tokens.weight.zero_()
        module.lm_head.weight.zero_()
        for place, (token, following) in enumerate(pairwise(chain)):
            module.model.embed_tokens.weight[token, place] = 1.0
            module.lm_head.weight[following, place] = 9.0
    model = wrap_model(module, model_config())
    settings = GenerationSettings(max_new_tokens=9)
    made = capture_conversation(model, tokenizer, "talk", PROMPT, settings, STEPS).generations[0]
    assert made.token_ids == reply
    assert made.text == "日a"
    assert [step.generated_token for step in made.steps] == ["\ufffd", "\ufffd", "\ufffd", "a", "<eos>"]


def test_steps_are_told_while_they_run():
    heard = []
    made = run(make(), GenerationSettings(max_new_tokens=40), on_steps=lambda *told: heard.append(told))[1]
    assert [number for number, _ in heard] == [0, 0]
    assert [step for _, steps in heard for step in steps] == made.steps
    assert len(made.steps) == 40


def test_weights_that_are_not_numbers():
    model = make()
    run(model, GenerationSettings(max_new_tokens=1), CaptureSettings())  # it is looked at while it is sound
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    every = CaptureSettings(store_dtype="float16")
    conversation, made = run(model, GenerationSettings(max_new_tokens=3), every)
    assert len(made.token_ids) == 3
    counts = conversation.notes["not_finite"]
    rows = len(conversation.snapshots)
    assert counts["snapshots"]["mlp_out"]["1"] == rows  # one column of each row
    assert counts["snapshots"]["resid_post"] == {"1": rows, "2": rows * 16}
    assert counts["generation after message 2"]["logits"] == {"2": 3 * 300}
    assert "0" not in counts["snapshots"]["mlp_out"]
    with pytest.raises(StrataError, match="no token can be sampled"):
        run(model, GenerationSettings(do_sample=True))


def test_logits_that_are_ruled_out_carry_no_entropy():
    model = make()
    head = model.module.lm_head
    head.register_forward_hook(lambda _module, _args, output: output.index_fill(-1, torch.arange(200), -math.inf))
    made = run(model, GenerationSettings(max_new_tokens=2))[1]
    for step in made.steps:
        assert 0 < step.entropy < math.log(100)
