"""What modulators do to predictions and states, against sums written out by hand."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, softmax

from src.hook_points import HookPoint
from src.models import LanguageModel, attach, wrap_model
from src.modulators.evaluation.effects import FROZEN, measure_effects
from src.modulators.residual import ResidualModulator
from src.modulators.training.examples import Example
from tests.fixtures.tiny_models import D_MODEL, N_LAYERS, N_VOCAB, model_config, tiny_model

LENGTHS = [9, 5, 12, 2]


def loaded(family: str, dtype: torch.dtype = torch.float32, **keys) -> LanguageModel:
    return wrap_model(tiny_model(family).to(dtype=dtype), model_config(**keys))


def modulator_of(alpha: float = 0.3, seed: int = 0) -> ResidualModulator:
    draws = torch.Generator().manual_seed(seed)
    table, projection = torch.randn(N_VOCAB, 4, generator=draws), torch.randn(D_MODEL, 4, generator=draws)
    known = torch.rand(N_VOCAB, generator=draws) < 0.7
    return ResidualModulator(table, projection, known, range(N_LAYERS), alpha).requires_grad_(False)


def texts(lengths=LENGTHS) -> list[Example]:
    draws = np.random.default_rng(0)
    found = []
    for group, n in enumerate(lengths):
        predicted = draws.random(n) < 0.7
        predicted[0], predicted[1] = False, True
        found.append(Example(draws.integers(3, N_VOCAB, n).astype(np.int32), predicted, group))
    return found


def answers() -> list[Example]:
    draws = np.random.default_rng(1)

    def ids(n: int) -> np.ndarray:
        return draws.integers(3, N_VOCAB, n).astype(np.int32)

    return [Example(ids(n), np.ones(m, bool), k, ids(m)) for k, (n, m) in enumerate([(7, 3), (4, 1), (9, 2)])]


def one_pass(model: LanguageModel, example: Example, modulator=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and states of the one stack before the final norm, of one text without padding."""
    states = []
    handle = attach(model, HookPoint("resid_post", model.n_layers - 1), lambda state: states.append(state[0].clone()))
    ids = torch.from_numpy(example.input_ids).long()[None]
    keys = {} if example.target_ids is None else {"labels": torch.from_numpy(example.target_ids).long()[None]}
    if modulator is not None:
        with modulator.attached(model), torch.no_grad():
            logits = model.module(ids, **keys).logits[0]
    else:
        with torch.no_grad():
            logits = model.module(ids, **keys).logits[0]
    handle.remove()
    return logits, states[-1]


def by_hand(model: LanguageModel, example: Example, modulator) -> dict[str, float]:
    (changed, states), (frozen, originals) = one_pass(model, example, modulator), one_pass(model, example)
    predicted = torch.from_numpy(example.predicted)
    if example.target_ids is None:
        ids = torch.from_numpy(example.input_ids).long()[predicted]
        changed, frozen = changed[:-1][predicted[1:]], frozen[:-1][predicted[1:]]
        states, originals = states[predicted], originals[predicted]
    else:
        ids = torch.from_numpy(example.target_ids).long()
    p, q = softmax(frozen.double(), -1), softmax(changed.double(), -1)
    pairs = [float(cosine_similarity(states[i], states[j], dim=0)) for i in range(len(states)) for j in range(i)]
    cosine = cosine_similarity(states, originals)
    return {
        "nll": float(cross_entropy(changed, ids, reduction="sum")),
        "kl": float((p * (p / q).log()).sum()),
        "agreement": float((changed.argmax(-1) == frozen.argmax(-1)).sum()),
        "n_predicted": len(ids),
        "cosine": float(cosine.sum()),
        "cosine_square": float(cosine.square().sum()),
        "norm_ratio": float((states.norm(dim=-1) / originals.norm(dim=-1)).sum()),
        "n_states": len(states),
        "pooled_cosine": float(cosine_similarity(states.mean(0), originals.mean(0), dim=0)),
        "neighbours": float(np.mean(pairs)) if pairs else float("nan"),
    }


@pytest.mark.parametrize(
    ("family", "examples", "keys"),
    [
        ("llama", texts(), {}),
        ("gpt2", texts(), {}),
        ("t5_with_head", answers(), {}),
        ("t5_with_head", answers(), {"stack": "decoder"}),
    ],
)
def test_effects_are_those_of_each_text_alone(family, examples, keys):
    model, modulator = loaded(family, **keys), modulator_of()
    found = measure_effects(model, {"modulated": modulator}, examples, batch_size=3)
    for row, example in enumerate(examples):
        for name, which in ((FROZEN, None), ("modulated", modulator)):
            expected = by_hand(model, example, which)
            for key, value in expected.items():
                got = float(getattr(found[name], key)[row])
                assert got == pytest.approx(value, rel=2e-4, abs=2e-5, nan_ok=True), (name, key, row)
    assert float(found["modulated"].kl.sum()) > 0.01


def test_the_frozen_model_differs_in_nothing_from_itself():
    found = measure_effects(loaded("llama"), {}, texts(), batch_size=2)
    assert list(found) == [FROZEN]
    frozen = found[FROZEN]
    assert frozen.kl.abs().max() == 0
    assert torch.equal(frozen.agreement, frozen.n_predicted)
    assert torch.allclose(frozen.cosine / frozen.n_states, torch.ones(4, dtype=torch.float64), atol=1e-6)


def test_one_variant_does_not_see_another_and_the_model_is_left_as_it_was():
    model, one, other = loaded("llama"), modulator_of(), modulator_of(0.6, seed=3)
    alone = measure_effects(model, {"one": one}, texts(), batch_size=2)["one"]
    beside = measure_effects(model, {"other": other, "one": one}, texts(), batch_size=2)["one"]
    assert torch.equal(alone.nll, beside.nll)
    assert torch.equal(alone.cosine, beside.cosine)
    hooks = [module for module in model.module.modules() if module._forward_pre_hooks or module._forward_hooks]
    assert hooks == []


def test_logits_in_half_precision_are_compared_in_float32():
    model = loaded("llama", torch.bfloat16)
    found = measure_effects(model, {"modulated": modulator_of()}, texts(), batch_size=4)
    wide = measure_effects(loaded("llama"), {"modulated": modulator_of()}, texts(), batch_size=4)
    assert found[FROZEN].kl.abs().max() == 0
    assert float(found["modulated"].kl.sum()) == pytest.approx(float(wide["modulated"].kl.sum()), rel=0.1)


def test_many_tokens_are_compared_some_at_a_time(monkeypatch):
    whole = measure_effects(loaded("llama"), {"modulated": modulator_of()}, texts(), batch_size=4)
    monkeypatch.setattr("src.modulators.evaluation.effects.suitable_chunk", lambda _: 4 * N_VOCAB * 3)
    parts = measure_effects(loaded("llama"), {"modulated": modulator_of()}, texts(), batch_size=4)
    assert torch.allclose(whole["modulated"].kl, parts["modulated"].kl, rtol=1e-6)
