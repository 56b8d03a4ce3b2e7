"""Weekdays and months lie on circles in the order of the calendar, in the committed models.

Recipe: the mean resid_post of each word over the held-out documents is a point; the longest loop of these 7 or 12
points is tested against Gaussian clouds of the same mean and covariance (a rotation test); its circular coordinate
gives the order of the words around it. Recipe and layers were chosen on training text of base; small, which was trained
on its own, had no part in it.
"""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from src.multiple_tests import holm
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.inference.nulls import gaussian
from src.topology.inference.significance import null_largest_ratios, significant_loops
from src.topology.loops.loops import cycle_test, loops_of
from src.topology.loops.tracking import track_loops
from testbed.circles import CYCLES, centroids
from tests.testbed.conftest import TESTBED, lines

_DOCUMENTS = 300
_DRAWS = 199


def means_of(model):
    folder = TESTBED / "models" / model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = [document["text"] for document in lines("heldout")[:_DOCUMENTS]]
    return centroids(loaded, tokenizer, texts, CYCLES)


@pytest.fixture(scope="module")
def of_base():
    return means_of("base")


def longest_loop(points):
    distances = Distances.from_points(points)
    found = persistence(distances)
    null = null_largest_ratios(points, gaussian, _DRAWS, seed=0)
    return loops_of(distances, found, significant_loops(found.bars[1], null).p_null, level=1, at_most=1)


def in_calendar(loop, n_classes):
    test = cycle_test(loop, np.arange(n_classes), n_classes)
    assert test is not None
    return test


def test_weekdays_go_around_a_loop_in_layers_0_to_4_of_base(of_base):
    loops = [longest_loop(of_base[layer]["weekdays"]) for layer in range(5)]
    tests = [in_calendar(loop, 7) for (loop,) in loops]
    assert all(test.order.in_order for test in tests)
    assert max(holm(np.array([test.p for test in tests]))) < 0.01
    # by itself, a loop of seven points is weaker evidence
    assert sorted(test.p_loop for test in tests)[2] < 0.04
    (track,) = track_loops(range(5), loops)
    assert (track.birth_layer, track.death_layer) == (0, 4)


def test_months_go_around_a_loop_in_layers_2_and_3_of_base(of_base):
    loops = [longest_loop(of_base[layer]["months"]) for layer in range(6)]
    tests = [in_calendar(loop, 12) for (loop,) in loops]
    assert max(tests[layer].p_loop for layer in (1, 2, 3)) <= 0.02
    assert [tests[layer].order.in_order for layer in (2, 3)] == [True, True]
    assert all(tests[layer].p < 1e-6 for layer in (2, 3))
    assert not tests[5].order.in_order  # other structure has taken over
    (track,) = [track for track in track_loops(range(6), loops) if track.birth_layer == 0]
    assert track.death_layer >= 3


def test_a_model_that_had_no_part_in_the_choice_has_the_same_circles():
    small = means_of("small")
    for layer in range(3):
        (months,), (weekdays,) = longest_loop(small[layer]["months"]), longest_loop(small[layer]["weekdays"])
        assert in_calendar(months, 12).order.in_order
        assert months.p <= 0.02
        assert in_calendar(weekdays, 7).p < 0.01


def test_words_that_form_no_cycle_have_no_order(of_base):
    # the same points under shuffled names: the loop stays, the order goes
    points = of_base[2]["months"]
    shuffled = np.random.default_rng(0).permutation(12)
    (loop,) = longest_loop(points[shuffled])
    test = in_calendar(loop, 12)
    assert not test.order.in_order
    assert test.order.p > 0.05
