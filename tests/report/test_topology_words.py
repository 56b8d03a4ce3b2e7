"""What is said of clouds: what is beyond chance, what is not, and what to beware of."""

from dataclasses import replace

import numpy as np
import pytest

from src.report.topology.words import topology_text
from src.topology.profile import CycleSummary
from src.topology.profiling import ProfileSettings, profile_cloud
from src.topology.protocols.protocol import FROZEN_V5, ROBUST

SETTINGS = ProfileSettings(null_draws=19)


def cloud(name: str, circle: bool, spread: float = 0.1):
    draws = np.random.default_rng(0)
    angles = 2 * np.pi * np.arange(50) / 50
    points = spread * draws.normal(size=(50, 4))
    if circle:
        points[:, 0] += np.cos(angles)
        points[:, 1] += np.sin(angles)
    return profile_cloud(points, ROBUST, SETTINGS, seed=0, name=name)


@pytest.fixture(scope="module")
def profiles():
    return [cloud("round", True), cloud("noise", False)]


def said(profiles, protocol=ROBUST) -> str:
    return topology_text(profiles, "somewhere", protocol, 0.05)


def test_what_is_beyond_chance_and_what_is_not(profiles):
    both, alone = said(profiles), said(profiles[1:])
    assert "2 clouds of 50 points from somewhere, under the protocol robust" in both
    assert "1 of 2 clouds have loops that are more than chance (level 0.05): round (1)." in both
    assert "0.1 would be expected to have one" in both
    assert "No cloud has a loop that is more than chance" in alone
    assert "longer than those of a Gaussian of the same covariance in no cloud" in alone


def test_no_unit_changes_what_is_said(profiles):
    draws = np.random.default_rng(0)
    points = 0.1 * draws.normal(size=(50, 4))
    scaled = [profile_cloud(scale * points, ROBUST, SETTINGS, seed=0, name="noise") for scale in (1.0, 1000.0)]
    assert said(scaled[:1]) == said(scaled[1:])


def test_warnings_name_the_clouds(profiles):
    points = np.random.default_rng(1).normal(size=(40, 3))
    points[:5] = points[5]
    points[9] = 40.0
    odd = profile_cloud(points, ROBUST, replace(SETTINGS, nulls=()), seed=0, name="odd")
    text = said([*profiles, odd])
    assert "Many points are copies of others in odd:" in text
    assert "Without the farthest 1 % of the points, the diameter shrinks by more than 20% in odd." in text


def test_a_package_s_errors_are_told(profiles):
    assert "Their errors: the scale is the diameter" in said(profiles, FROZEN_V5)
    assert "Their errors" not in said(profiles)


def test_the_order_of_labels_is_corrected_for_the_clouds(profiles):
    def cycle(p: float) -> CycleSummary:
        return CycleSummary(True, (0, 1, 2, 3), p, p, 0.9, p)

    both = [replace(profiles[0], cycles=(cycle(0.001),)), replace(profiles[1], cycles=(cycle(0.04), cycle(0.001)))]
    assert "more than chance in round (p = 0.002), noise (p = 0.04), corrected" in said(both)
    assert "more than chance in round (p = 0.002), corrected" in said([both[0], replace(both[1], cycles=(cycle(0.2),))])
    assert "No longest loop reaches every label." in said([replace(profiles[0], cycles=(None,))])
