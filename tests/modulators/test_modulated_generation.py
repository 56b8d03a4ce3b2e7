"""Generation through a modulator: cached or not, greedy, beams or sampled, padded on either side."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from src.models import LanguageModel, load_predicting_model
from tests.fixtures.tiny_models import model_config, ragged_batch
from tests.fixtures.tiny_modulators import STACKS, modulators, residual_modulator, wrapped

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "sampled": {"do_sample": True, "top_p": 0.9},
}
N_NEW = 6


def generated(model: LanguageModel, ids: Tensor, mask: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    """Sequences, and the logits of every step."""
    torch.manual_seed(0)
    settings |= {"max_new_tokens": N_NEW, "min_new_tokens": N_NEW, "pad_token_id": 0}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    with torch.no_grad():
        found: Any = model.module.generate(input_ids=ids, attention_mask=mask, **settings)  # pyright: ignore
    return found.sequences, torch.stack(found.logits)


def both_ways(model: LanguageModel, ids: Tensor, mask: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    """Sequences and logits, which are the same with a cache and without."""
    cached, whole = (generated(model, ids, mask, use_cache=use, **settings) for use in (True, False))
    assert torch.equal(cached[0], whole[0])
    torch.testing.assert_close(cached[1], whole[1], atol=1e-4, rtol=1e-4)
    return cached


def left_padded(lengths: list[int]) -> tuple[Tensor, Tensor]:
    ids, mask = ragged_batch(lengths)
    return ids.flip(1), mask.flip(1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("family", "stack"),
    [*((family, "auto") for family in ("llama", "gpt2", "gemma2", "opt", "gpt_neox", "qwen3_next")), *STACKS],
)
def test_cached_generation_is_uncached_generation(family: str, stack: str, way: str):
    model = wrapped(family, stack)
    padded = [3, 3] if family == "qwen3_next" else [5, 3]  # its state runs over padding
    ids, mask = left_padded(padded)
    frozen = generated(model, ids, mask, **WAYS[way])
    for modulator in modulators(model).values():
        with modulator.attached(model):
            _, logits = both_ways(model, ids, mask, **WAYS[way])
        assert (logits[0] - frozen[1][0]).abs().max() > 0.01
    assert torch.equal(generated(model, ids, mask, **WAYS[way])[1], frozen[1])


@torch.no_grad()
def greedily(model: LanguageModel, text: list[int]) -> list[int]:
    """Whole passes of one text, without transformers' own loop."""
    for _ in range(N_NEW):
        text = [*text, int(model.module(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1].argmax())]
    return text


def test_generation_is_whole_passes_one_by_one():
    model = wrapped("llama")
    ids, mask = left_padded([5, 3])
    with residual_modulator(model).attached(model):
        found, _ = generated(model, ids, mask, do_sample=False)
        for row, length in zip(found, [5, 3], strict=True):
            assert row[5 - length :].tolist() == greedily(model, row[5 - length : 5].tolist())


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox"])
@torch.no_grad()
def test_padding_on_either_side_changes_nothing(family: str):
    model = wrapped(family)
    ids, mask = ragged_batch([6, 3])
    left_ids, left_mask = torch.stack([ids[0], ids[1].roll(3)]), torch.stack([mask[0], mask[1].roll(3)])
    positions = (left_mask.cumsum(1) - 1).clamp_min(0)
    for modulator in modulators(model).values():
        with modulator.attached(model):
            alone = model.module(input_ids=ids[1:, :3], use_cache=False).logits[0]
            right = model.module(input_ids=ids, attention_mask=mask, use_cache=False).logits[1, :3]
            left = model.module(input_ids=left_ids, attention_mask=left_mask, position_ids=positions, use_cache=False)
        torch.testing.assert_close(right, alone, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(left.logits[1, 3:], alone, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def testbed() -> LanguageModel:
    return load_predicting_model(model_config(path="testbed/models/base", dtype="float32"), "cpu")


@pytest.mark.parametrize("way", WAYS)
def test_the_testbed_goes_on_with_a_text_the_same_with_its_cache(testbed: LanguageModel, way: str):
    """Spec K: cached and uncached generation agree."""
    tokenizer = AutoTokenizer.from_pretrained("testbed/models/base", padding_side="left")
    batch = tokenizer(["the day after monday", "two"], return_tensors="pt", padding=True)
    frozen = generated(testbed, batch.input_ids, batch.attention_mask, **WAYS[way])
    with residual_modulator(testbed, alpha=0.2).attached(testbed):
        sequences, _ = both_ways(testbed, batch.input_ids, batch.attention_mask, **WAYS[way])
    assert not torch.equal(sequences, frozen[0])
