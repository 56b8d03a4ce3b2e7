"""What a modulator with planted geometry has beyond the frozen model and its controls, and what one without has not."""

import math

import numpy as np
import pytest
import torch

from src.geometry.words.pair_sums import jackknife_error
from src.modulators.evaluation.effects import FROZEN
from src.modulators.evaluation.geometry.readings import (
    MODULATED,
    STATIC,
    ReadingProfile,
    WordReading,
    contrasts,
    profile_readings,
)
from src.modulators.evaluation.geometry.relations import kinship
from tests.fixtures.random_taxonomy import made_taxonomy

CPU = torch.device("cpu")
N, D = 60, 24
# a thing, six kinds, kinds of these, and words
TAXONOMY = made_taxonomy(
    [[], *([0] for _ in range(6)), *([1 + i % 6] for i in range(12)), *([7 + i % 12] for i in range(N - 19))]
)
RELATED = kinship(TAXONOMY, list(range(N)))


def with_kinds(seed: int) -> np.ndarray:
    """Rows that hold their parents' rows."""
    rows = np.random.default_rng([seed, 1]).normal(size=(N, D))
    for sense in range(N):
        for parent in TAXONOMY.parents(sense):
            rows[sense] += rows[parent]
    return rows


def readings(strength: float, seed: int = 0, draws: int = 4) -> list[WordReading]:
    """States without relations, and as much of vectors that have them mixed in; permuted vectors as the control."""
    rng = np.random.default_rng(seed)
    state, vectors = rng.normal(size=(N, D)), with_kinds(seed)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) / D**0.5

    def mixed(target: np.ndarray | float) -> torch.Tensor:
        return torch.from_numpy((1 - strength) * state + strength * target)

    def reading(name: str, *rows: torch.Tensor) -> WordReading:
        return WordReading(name, 1, rows)

    return [
        WordReading(STATIC, None, [torch.from_numpy(vectors)]),
        reading(FROZEN, torch.from_numpy(state)),
        reading(MODULATED, mixed(vectors)),
        reading("zero", mixed(0.0)),
        reading("shuffled", *(mixed(rng.permutation(vectors)) for _ in range(draws))),
    ]


def profiles_of(some: list[WordReading], contrasted: int = 99, permutations: int = 19) -> list[ReadingProfile]:
    return profile_readings(some, RELATED, contrasted, "centred", permutations, 0, CPU)


def test_planted_geometry_is_beyond_the_frozen_model_and_all_controls():
    profiles = profiles_of(readings(0.5), contrasted=1, permutations=199)
    by_name = {profile.name: profile for profile in profiles}
    assert by_name[MODULATED].p == pytest.approx(1 / 200)
    assert by_name[FROZEN].p > 0.05
    assert by_name[FROZEN].low < by_name[FROZEN].path.value < by_name[FROZEN].high
    found = {each.other: each for each in contrasts(profiles, 1)}
    assert set(found) == {FROZEN, "zero", "shuffled"}  # embedding rows are of no layer
    for each in found.values():
        assert each.differences["path"].low > 0
        assert each.differences["Wu-Palmer"].low > 0
        assert each.p < 0.01
        assert each.bands["0.25 to 0.5"].low > 0
        assert math.isfinite(each.differences["slope"].value)
    # a mere shrink turns no state: exactly the frozen model's cosines
    shrink = found["zero"].differences["path"]
    assert shrink.value == pytest.approx(found[FROZEN].differences["path"].value, abs=1e-9)


def test_permuted_vectors_are_as_good_as_those_without_relations():
    """12 modulators whose vectors say nothing of the words: what they have beyond controls is chance."""
    p = []
    for seed in range(12):
        some = readings(0.5, seed, draws=2)
        rng = np.random.default_rng([seed, 9])
        nothing = torch.from_numpy(rng.permutation(some[2].draws[0].numpy() - 0.5 * some[1].draws[0].numpy()))
        some[2] = WordReading(MODULATED, 1, [0.5 * some[1].draws[0] + nothing])
        p += [each.p for each in contrasts(profiles_of(some), 1)]
    assert np.mean(np.array(p) < 0.05) <= 0.1


def test_draws_of_a_random_control_are_averaged_and_all_compared():
    profiles = profiles_of(readings(0.5))
    shuffled = next(profile for profile in profiles if profile.name == "shuffled")
    values = [each.value for each in shuffled.estimates("path")]
    assert len(set(values)) == 4
    assert shuffled.path.value == pytest.approx(np.mean(values))
    modulated = next(profile for profile in profiles if profile.name == MODULATED)
    found = next(each for each in contrasts(profiles, 1) if each.other == "shuffled").differences["path"]
    assert found.value == pytest.approx(modulated.path.value - np.mean(values))
    assert modulated.path.left is not None
    assert shuffled.path.left is not None
    of_words = jackknife_error(modulated.path.left - shuffled.path.left)
    # wider than the words alone make it
    assert found.high - found.value > 1.96 * math.hypot(of_words, np.std(values, ddof=1) / 2) * 0.999


def test_p_of_contrasts_is_corrected_for_all_of_them():
    found = contrasts(profiles_of(readings(0.3)), 1)
    raw = sorted(each.differences["path"].p for each in found)
    assert min(each.p for each in found) == pytest.approx(min(1, 3 * raw[0]))
    assert all(each.p >= each.differences["path"].p for each in found)


def test_states_that_are_all_alike_have_no_relations():
    some = readings(0.5)
    some[2] = WordReading(MODULATED, 1, [torch.ones(N, D, dtype=torch.float64)])
    profiles = profiles_of(some)
    modulated = next(profile for profile in profiles if profile.name == MODULATED)
    assert math.isnan(modulated.path.value)
    assert math.isnan(modulated.p)
    assert all(math.isnan(each.differences["path"].value) and math.isnan(each.p) for each in contrasts(profiles, 1))


def test_a_layer_that_was_not_read_is_refused():
    with pytest.raises(ValueError, match="layer 3 was not read"):
        contrasts(profiles_of(readings(0.5)), 3)
