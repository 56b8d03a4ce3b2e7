"""Composite scores: the reference's formulas, ours, and which features are chosen."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from src.config.schema import parse_config
from src.config.score_features import PresetConfig
from src.features.scores.scoring import Preset, Weights, best, composite, minmax, normalised_terms, quantile
from src.stage.entry import compose
from src.stage.feature_scores import preset_of

NAN = float("nan")
RNG = np.random.default_rng(0)


def preset(name: str) -> Preset:
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(compose("score_features", [f"preset={name}"]).preset)
    assert isinstance(values, dict)
    return preset_of(parse_config(PresetConfig, {str(key): value for key, value in values.items()}))


def metrics(n: int = 50) -> dict[str, np.ndarray]:
    found = {name: RNG.normal(size=n) for name in ("coherence", "focus", "causal")}
    found |= {"redundancy": RNG.random(n), "rate": RNG.random(n)}
    found["causal"][10:] = NAN  # not among the candidates
    return found


def reference_minmax(x: np.ndarray) -> np.ndarray:
    """Of find_feats.py (spec 1.4)."""
    low, high = np.nanmin(x), np.nanmax(x)
    return np.zeros_like(x) if high - low < 1e-8 else (x - low) / (high - low + 1e-8)


def test_the_reference_preset_is_the_references_formula():
    raw, chosen = metrics(), preset("reference")
    coh, foc = reference_minmax(raw["coherence"]), reference_minmax(raw["focus"])
    red, dead = reference_minmax(raw["redundancy"]), reference_minmax(-raw["rate"])
    cau = np.zeros(50)
    cau[:10] = reference_minmax(np.maximum(raw["causal"][:10], 0))
    terms = normalised_terms({name: torch.from_numpy(x) for name, x in raw.items()}, chosen)
    first = composite(terms, chosen.first, chosen.missing)
    final = composite(terms, chosen.final, chosen.missing)
    np.testing.assert_allclose(first, 0.40 * coh + 0.35 * foc - 0.15 * red - 0.10 * dead, atol=1e-12)
    np.testing.assert_allclose(final, 0.35 * coh + 0.25 * foc + 0.30 * cau - 0.07 * red - 0.03 * dead, atol=1e-12)


def test_our_preset_is_a_weighted_mean_of_the_ranks_that_are_known():
    raw, chosen = metrics(), preset("strata")
    terms = normalised_terms({name: torch.from_numpy(x) for name, x in raw.items()}, chosen)
    score = composite(terms, chosen.final, chosen.missing).numpy()
    rank = {name: (rankdata(x) - 1) / 49 for name, x in raw.items() if name != "causal"}
    rank["causal"] = np.full(50, NAN)
    rank["causal"][:10] = (rankdata(np.maximum(raw["causal"][:10], 0)) - 1) / 9
    good = 0.35 * rank["coherence"] + 0.25 * rank["focus"] + 0.07 * (1 - rank["redundancy"]) + 0.03 * rank["rate"]
    np.testing.assert_allclose(score[:10], good[:10] + 0.30 * rank["causal"][:10], atol=1e-12)
    np.testing.assert_allclose(score[10:], good[10:] / 0.70, atol=1e-12)


def test_an_outlier_stretches_the_range_and_not_the_ranks():
    values = torch.tensor([1.0, 2.0, 3.0, 1e9])
    assert minmax(values)[:3].max() < 1e-6
    assert quantile(values).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(NAN)), min_size=1, max_size=30))
def test_normalised_values_lie_between_0_and_1_and_nan_stays_nan(values):
    given_values = torch.tensor(values, dtype=torch.float64)
    for normalise in (minmax, quantile):
        found = normalise(given_values)
        assert torch.equal(found.isnan(), given_values.isnan())
        known = found[~found.isnan()]
        assert ((known >= 0) & (known <= 1)).all()


def test_all_features_can_be_chosen():
    """percent = 100 crashed the reference (argpartition with kth = len)."""
    scores = torch.tensor([0.1, 0.9, 0.5, 0.5])
    everywhere = torch.ones(4, dtype=torch.bool)
    assert best(scores, everywhere, 100).tolist() == [1, 2, 3, 0]
    assert best(scores, everywhere, 50).tolist() == [1, 2]
    assert best(scores, everywhere, 1).tolist() == [1]
    assert best(scores, everywhere, 1, at_least=32).tolist() == [1, 2, 3, 0]


def test_dead_and_unknown_features_are_never_chosen():
    scores = torch.tensor([0.1, 0.9, NAN, 0.5])
    assert best(scores, torch.tensor([True, False, True, True]), 100).tolist() == [3, 0]


def test_where_nothing_is_known_there_is_no_score():
    nothing = dict.fromkeys(("coherence", "focus", "causal", "redundancy", "dead"), torch.tensor([NAN]))
    weights = Weights(1, 1, 1, -1, -1)
    assert composite(nothing, weights, "renormalise").isnan().all()
    assert composite(nothing, weights, "zero").tolist() == [0]
