"""Exact ablation of features, and its first-order estimate, against full forward passes with plain hooks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from src.causal.ablation import ablate_features
from src.causal.attribution import attribute_features
from src.causal.feature_effects import FeatureEffects
from src.errors import StrataError
from src.features import clustered
from src.features.sae import Sae
from src.hook_points import HookPoint
from src.models import LanguageModel, attach, capture, wrap_model
from src.text import Keep, TokenSequence
from tests.fixtures.loaded_saes import random_sae
from tests.fixtures.tiny_models import N_VOCAB, model_config, tiny_model

POINT = HookPoint("resid_post", 0)
DOCUMENTS = np.array([3, 0, 3, 1, 2, 0])  # not in order, some of several sequences
LENGTHS = [9, 4, 12, 7, 1, 11]


@pytest.fixture(autouse=True)
def _errors_of_few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four documents are enough here: what is compared are errors, not their coverage."""
    monkeypatch.setattr(clustered, "FEWEST_DOCUMENTS", 2)


def make_sequences(seed: int = 0) -> list[TokenSequence]:
    """BOS first, and one token in the middle that statistics leave out."""
    draws = np.random.default_rng(seed)
    made = []
    for length in LENGTHS:
        roles = np.full(length, Keep.COUNTED, np.uint8)
        roles[0] = Keep.BOS
        roles[3:4] = Keep.SPECIAL
        made.append(TokenSequence(len(made), draws.integers(3, N_VOCAB, length).astype(np.int32), roles))
    return made


def changed_nll(
    model: LanguageModel, sae: Sae, point: HookPoint, it: TokenSequence, feature: int, scale: float
) -> Tensor:
    """The whole model, with so much of a feature's contribution to SAELens' own reconstruction of counted tokens."""
    tokens = torch.from_numpy(it.token_ids).long()[None]
    counted = torch.from_numpy(it.roles == int(Keep.COUNTED))

    def write(state: Tensor) -> Tensor:
        x = state.reshape(1, -1, model.d_model)[0].clone()
        features, with_all = sae.reconstruct(x.float())
        features = features.clone()
        features[:, feature] = 0
        sae.encode(x.float())  # SAEs that normalise rows decode what they have encoded last
        difference = sae.module.decode(features) - with_all
        x[counted] += ((1 - scale) * difference[counted]).to(x.dtype)
        return x.view(state.shape)

    handle = attach(model, point, write)
    with torch.no_grad():
        logits = model.module(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    handle.remove()
    return cross_entropy(logits[0, :-1].double(), tokens[0, 1:], reduction="sum")


def expected_means(
    model: LanguageModel, sae: Sae, point: HookPoint, features: list[int], scales: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Mean change from the second scale to the first per counted and per firing token, feature by feature."""
    sequences = make_sequences()
    n_counted = sum(int((it.roles == Keep.COUNTED).sum()) for it in sequences)
    change, fired = torch.zeros(len(features), dtype=torch.float64), torch.zeros(len(features), dtype=torch.float64)
    for it in sequences:
        ids = torch.from_numpy(it.token_ids).long()[None]
        x = capture(model, ids, torch.ones_like(ids), [point])[point][0]
        z = sae.encode(x.float())[torch.from_numpy(it.roles == int(Keep.COUNTED))]
        for place, feature in enumerate(features):
            fired[place] += (z[:, feature] != 0).sum()
            if len(it.token_ids) > 1:
                one, other = (changed_nll(model, sae, point, it, feature, scale) for scale in scales)
                change[place] += one - other
    return change / n_counted, change / fired


CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("llama", "standard", "resid_post.0", {}),
    ("gpt2", "topk", "resid_post.1", {"rescale_acts_by_decoder_norm": True}),
    ("gemma2", "jumprelu", "mlp_out.1", {}),
    ("opt", "standard", "resid_post.2", {"normalize_activations": "layer_norm"}),
    ("falcon", "standard", "resid_pre.1", {"normalize_activations": "constant_norm_rescale"}),
]


@pytest.mark.parametrize(("family", "architecture", "where", "keys"), CASES)
def test_ablation_equals_a_hooked_full_forward_of_each_feature(
    family: str, architecture: str, where: str, keys: dict[str, Any]
) -> None:
    point = HookPoint.parse(where)
    model, sae = wrap_model(tiny_model(family), model_config()), random_sae(point, architecture, **keys)
    features = [7, 0, 31, 12, 5]
    done: list[int] = []
    words: dict[str, Any] = {"batch_size": 3, "rows_per_pass": 4, "chunk_bytes": 4 * N_VOCAB * 5}
    effects = ablate_features(model, point, sae, features, make_sequences(), DOCUMENTS, **words, advance=done.append)
    per_token, per_firing = expected_means(model, sae, point, features, (0, 1))
    assert float(per_token.abs().max()) > 1e-2
    torch.testing.assert_close(effects.per_token.mean(), per_token, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(effects.per_firing.mean(), per_firing, atol=1e-4, rtol=1e-4, equal_nan=True)
    assert sum(done) == len(LENGTHS)
    assert effects.per_token.n_documents == 4
    again = ablate_features(model, point, sae, features, make_sequences(), DOCUMENTS, **words)
    assert torch.equal(again.per_token.mean(), effects.per_token.mean())
    whole = ablate_features(model, point, sae, features[::-1], make_sequences(), DOCUMENTS)
    torch.testing.assert_close(whole.per_token.mean().flip(0), effects.per_token.mean(), atol=1e-6, rtol=1e-4)
    errors = whole.per_token.standard_error().flip(0), effects.per_token.standard_error()
    torch.testing.assert_close(*errors, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(("family", "architecture", "where", "keys"), CASES)
def test_attribution_is_the_derivative_with_respect_to_a_features_contribution(
    family: str, architecture: str, where: str, keys: dict[str, Any]
) -> None:
    point = HookPoint.parse(where)
    model, sae = wrap_model(tiny_model(family), model_config()), random_sae(point, architecture, **keys)
    found = attribute_features(model, point, sae, make_sequences(), DOCUMENTS, steps=0, batch_size=3)
    exact = wrap_model(tiny_model(family).double(), model_config())
    step = 1e-3
    features = list(range(sae.n_features))[::4]
    per_token, per_firing = expected_means(exact, sae, point, features, (1 - step, 1 + step))
    assert float(per_token.abs().max()) > 1e-5
    torch.testing.assert_close(found.per_token.mean()[features], per_token / (2 * step), atol=2e-4, rtol=2e-3)
    torch.testing.assert_close(
        found.per_firing.mean()[features], per_firing / (2 * step), atol=2e-3, rtol=2e-3, equal_nan=True
    )
    assert found.per_token.n_documents == 4


def test_half_way_it_is_the_derivative_there_where_no_features_share_a_group() -> None:
    model, sae = wrap_model(tiny_model("gpt2"), model_config()), random_sae(POINT, n_features=6)
    found = attribute_features(model, POINT, sae, make_sequences(), DOCUMENTS, groups=100_000, seed=3)
    exact, step = wrap_model(tiny_model("gpt2").double(), model_config()), 1e-3
    per_token, _ = expected_means(exact, sae, POINT, list(range(6)), (0.5 - step, 0.5 + step))
    torch.testing.assert_close(found.per_token.mean(), per_token / (2 * step), atol=2e-4, rtol=2e-3)


def test_half_way_comes_nearer_to_exact_ablation_than_first_order_and_repeats() -> None:
    model, sae = wrap_model(tiny_model("llama"), model_config()), random_sae(POINT)
    sae.module.W_dec.data *= 0.1
    text = make_sequences(), DOCUMENTS
    exact = ablate_features(model, POINT, sae, list(range(40)), *text).per_token.mean()
    errors = {}
    for groups, steps in ((1, 0), (16, 1), (400, 1), (400, 3)):
        words: dict[str, Any] = {"groups": groups, "steps": steps}
        found = attribute_features(model, POINT, sae, *text, **words).per_token.mean()
        errors[groups, steps] = float((found - exact).norm() / exact.norm())
        assert torch.equal(found, attribute_features(model, POINT, sae, *text, **words).per_token.mean())
    assert errors[16, 1] < 0.5 * errors[1, 0]
    assert errors[400, 1] < 0.2 * errors[1, 0]
    assert errors[400, 3] < errors[400, 1]


def test_all_the_way_it_is_exact_ablation_where_no_features_share_a_group() -> None:
    """The integral of the derivative is the change."""
    model, sae = wrap_model(tiny_model("gpt2"), model_config()), random_sae(POINT, n_features=6)
    text, some = (make_sequences(), DOCUMENTS), [4, 1, 2]
    exact = ablate_features(model, POINT, sae, some, *text)
    found = attribute_features(model, POINT, sae, *text, features=some, groups=100_000, steps=8)
    assert float(exact.per_token.mean().abs().max()) > 1e-2
    torch.testing.assert_close(found.per_token.mean(), exact.per_token.mean(), atol=2e-5, rtol=1e-3)
    errors = found.per_firing.standard_error(), exact.per_firing.standard_error()
    torch.testing.assert_close(*errors, atol=2e-4, rtol=2e-3, equal_nan=True)


def test_errors_are_over_documents_however_their_sequences_come() -> None:
    sums = FeatureEffects(1)
    for names in ([2, 0], [3, 2], [1, 3]):  # documents 2 and 3 come in two pieces
        document = torch.tensor(names)
        pieces = torch.tensor([2.0 if name in (2, 3) else 1.0 for name in names])
        sums.count(document, 6 / pieces)
        sums.add(document, torch.zeros(2, dtype=torch.long), document / pieces, torch.ones(2))
    sums.close()
    assert sums.per_token.n_documents == 4
    assert float(sums.per_token.mean()) == pytest.approx(6 / 24)
    assert float(sums.per_token.standard_error()) == pytest.approx(np.arange(4).std(ddof=1) / 2 / 6)
    assert float(sums.per_firing.mean()) == pytest.approx(6 / 6)


def test_what_can_not_be_ablated_is_refused() -> None:
    model, sae = wrap_model(tiny_model("llama"), model_config()), random_sae(POINT)
    for features, point, message in (
        ([3, 40], POINT, r"features 0\.\.39, and no 40"),
        ([3], HookPoint("resid_post", 5), r"layers 0\.\.2"),
    ):
        with pytest.raises(StrataError, match=message):
            ablate_features(model, point, sae, features, make_sequences(), DOCUMENTS)
    with pytest.raises(StrataError, match="activations of width 12, and the residual stream of tiny has 16"):
        ablate_features(model, POINT, random_sae(POINT, d_in=12), [3], make_sequences(), DOCUMENTS)
    with pytest.raises(StrataError, match="no sequences"):
        ablate_features(model, POINT, sae, [3], [], DOCUMENTS[:0])
    with pytest.raises(StrataError, match="has no vocabulary head"):
        ablate_features(wrap_model(tiny_model("bert"), model_config()), POINT, sae, [3], make_sequences(), DOCUMENTS)


def test_features_that_never_fire_change_nothing() -> None:
    model, sae = wrap_model(tiny_model("llama"), model_config()), random_sae(POINT)
    sae.module.b_enc.data[5] = -1e4
    effects = ablate_features(model, POINT, sae, [5], make_sequences(), DOCUMENTS)
    assert float(effects.per_token.mean()) == 0
    assert bool(effects.per_firing.mean().isnan())
