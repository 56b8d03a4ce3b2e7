"""The committed models: they load as any user's model does, and they can do what the README says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from testbed import circles, evaluate, lexicon

TESTBED = Path(__file__).resolve().parents[2] / "testbed"
NAMES = ("base", "small", "chat")


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(2)
    return evaluate.load("base")


@pytest.mark.parametrize("name", NAMES)
def test_folder_loads(name: str) -> None:
    folder = TESTBED / "models" / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.tie_word_embeddings
    assert len(tokenizer) == model.config.vocab_size == len(lexicon.vocabulary())
    assert all(torch.isfinite(p).all() for p in model.parameters())
    end = "<end>" if name == "chat" else "<eos>"
    assert tokenizer.eos_token == end
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids(end)


def test_size() -> None:
    total = sum(path.stat().st_size for path in (TESTBED / "models").rglob("*"))
    assert total <= 15e6
    assert sum(path.stat().st_size for path in (TESTBED / "corpus").rglob("*")) < 6e6


def test_tokenizer_round_trip(heldout: list[dict]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TESTBED / "models" / "base")
    for record in heldout[:200]:
        ids = tokenizer(record["text"]).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] != tokenizer.eos_token_id
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == record["text"]
        assert len(ids) == record["text"].count(" ") + 2


def test_chat_template(chats_heldout: list[dict]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TESTBED / "models" / "chat")
    messages = [
        {"role": "system", "content": "be brief ."},
        {"role": "user", "content": "hello ."},
        {"role": "assistant", "content": "hello , how can i help you ?"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<bos> <system> be brief . <end> <user> hello . <end> <assistant> hello , how can i help you ? <end>"
    )
    assert tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True).endswith(
        "hello . <end> <assistant>"
    )
    for record in chats_heldout[:50]:
        ids = tokenizer.apply_chat_template(record["messages"], return_dict=False)
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("count from monday to thursday .", "monday tuesday wednesday thursday ."),
        ("what is a robin ?", "a robin is a bird ."),
        ("what day comes after sunday ?", "it is monday ."),
    ],
)
def test_chat_answers(question: str, answer: str) -> None:
    folder = TESTBED / "models" / "chat"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**prompt, do_sample=False, max_new_tokens=40)[0, prompt["input_ids"].shape[1] :]
    assert written[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(written[:-1]) == answer


def test_chat_feels_the_last_event() -> None:
    folder = TESTBED / "models" / "chat"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    messages = [
        {"role": "user", "content": "i lost my dog ."},
        {"role": "assistant", "content": "you feel sad ."},
        {"role": "user", "content": "today i won the race ."},
        {"role": "assistant", "content": "that makes you proud ."},
        {"role": "user", "content": "how do i feel ?"},
    ]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**prompt, do_sample=False, max_new_tokens=20)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(written, skip_special_tokens=True) == "you feel proud ."


@pytest.mark.parametrize("name", NAMES)
def test_skills(name: str) -> None:
    """Every bar, on a part of the material."""
    measured = evaluate.measure(evaluate.load(name), fraction=0.1)
    assert sum(evaluate.bar_of(skill) is not None for skill in measured.skills) > 15
    for skill, (right, n) in measured.skills.items():
        bar = evaluate.bar_of(skill)
        if bar is not None and n >= 30:
            assert right / n >= bar, (skill, right, n)
    assert measured.loss <= measured.optimum * (1 + evaluate.LOSS_BAR)
    assert measured.loss >= measured.optimum * 0.97  # below the code length only by luck of the sample


@pytest.fixture(scope="module")
def clouds(base, heldout: list[dict]) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(TESTBED / "models" / "base")
    texts = [record["text"] for record in heldout if record["topic"] in ("days", "months", "diaries")][:250]
    return circles.centroids(base, tokenizer, texts, circles.CYCLES)


@pytest.mark.parametrize("cycle", circles.CYCLES)
def test_cyclic_words_lie_on_a_circle(clouds: dict, cycle: str) -> None:
    """In the plane of the first two principal components, in calendar order, in at least two layers."""
    assert sum(circles.in_calendar_order(found[cycle]) for found in clouds.values()) >= 2
    chance = 2 / (len(circles.CYCLES[cycle]) - 1)
    assert max(circles.frequencies(found[cycle])[0] for found in clouds.values()) > 1.5 * chance


def test_calendar_order() -> None:
    angles = np.arange(12) * 2 * np.pi / 12
    ring = np.stack([np.cos(angles), np.sin(angles)], 1) @ np.random.default_rng(0).normal(size=(2, 20))
    assert circles.in_calendar_order(ring)
    assert circles.in_calendar_order(ring[::-1])
    assert circles.in_calendar_order(np.roll(ring, 5, axis=0))
    assert not circles.in_calendar_order(ring[np.arange(12) * 5 % 12])  # a star goes five times around
    swapped = ring.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert not circles.in_calendar_order(swapped)
    parity = np.where(np.arange(12) % 2, 5.0, -5.0)[:, None] * np.eye(20)[:1]
    assert circles.circle_plane(ring * 0.3 + parity) == (1, 2)
    assert circles.frequencies(ring)[0] == pytest.approx(1)
    assert circles.frequencies(parity)[-1] == pytest.approx(1)
    assert circles.frequencies(ring[:7] + parity[:7]).sum() == pytest.approx(1)


def test_wilson() -> None:
    low, high = evaluate.wilson(95, 100)
    assert (round(low, 3), round(high, 3)) == (0.888, 0.978)
    assert evaluate.wilson(0, 0) == (0.0, 1.0)


def test_lexicon_file_is_current() -> None:
    assert json.loads((TESTBED / "lexicon.json").read_text()) == json.loads(json.dumps(lexicon.as_dict()))
