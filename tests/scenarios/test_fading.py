import random

import pytest
import torch

from src.errors import StrataError
from src.scenarios.comparing.carry_over import half_life, lag_design, normal_equations
from src.scenarios.comparing.fading import fading
from tests.fixtures.planted_conversations import LAYERS, Planted


def order_of_labels(planted, seed, times=3):
    spoken = planted.labels * times
    random.Random(seed).shuffle(spoken)
    return spoken


def talks(planted, n, seed=0, neutral=True, **about):
    found = [planted.conversation(order_of_labels(planted, seed + i), name=f"talk_{i}", **about) for i in range(n)]
    return (
        [*found, planted.conversation([None] * 12, drift=about.get("drift", 0.0), name="plain")] if neutral else found
    )


def shuffled(planted, n, seed=0, **about):
    """One conversation, and the same turns in other orders."""
    spoken = order_of_labels(planted, seed)
    found = []
    for number in range(n):
        order = list(range(12))
        if number:
            random.Random(seed + number).shuffle(order)
        texts = [f"text {turn}" for turn in order]
        labels = [spoken[turn] for turn in order]
        found.append(
            planted.conversation(labels, texts=texts, name=f"talk_{number}", order=order if number else None, **about)
        )
    return found


def test_regression_on_lags_equals_least_squares():
    generator = torch.Generator().manual_seed(0)
    labels = [0, 1, 2, 0, -1, 1, 2, 2, 0, 1]
    values = torch.randn(1, 10, 3, generator=generator).double()
    design = lag_design(labels, torch.tensor([labels]), 3, 3, torch.ones(10, dtype=torch.bool))
    # by hand: a row for each turn and label but its own; a column for each turn, and one for each lag
    rows, read = [], []
    for turn, own in enumerate(labels):
        for label in range(3):
            if label == own:
                continue
            said = [turn - before for before in range(turn) if labels[before] == label]
            rows.append([float(turn == t) for t in range(10)] + [float(min(said, default=99) == k) for k in (1, 2, 3)])
            read.append(values[0, turn, label].item())
    expected = torch.linalg.lstsq(torch.tensor(rows).double(), torch.tensor(read).double()[:, None]).solution[10:, 0]
    demeaned = values.clone()
    for turn, own in enumerate(labels):
        others = [label for label in range(3) if label != own]
        demeaned[0, turn] -= values[0, turn, others].mean()
    torch.testing.assert_close(normal_equations(design, demeaned).solve()[0, 0], expected)


def test_what_is_carried_over_is_found_and_halves():
    curves, halves = [], []
    for seed in range(5):
        planted = Planted(seed, noise=0.3)
        conversations = talks(planted, 6, seed, carried=(1.2, 0.6, 0.3))
        found = fading(conversations, planted.references(6), "end", ("resid_post",), draws=99)
        assert (found.lags, found.controls, found.interval_over) == (list(range(7)), ["plain"], "conversations")
        it = found.by_source["resid_post"]
        assert (it.p_corrected[:, :2] <= 0.05).all()
        assert (it.slope_p_corrected <= 0.05).any()
        assert ((it.low <= it.curve) & (it.curve <= it.high)).float().mean() > 0.9
        curves.append(it.curve)
        halves.append(it.half_life)
    curve = torch.stack(curves).mean((0, 1))
    assert (curve[2:5] / curve[1]).tolist() == pytest.approx([0.5, 0.25, 0.0], abs=0.17)
    assert torch.stack(halves).nanmean().item() == pytest.approx(1, abs=0.3)


def test_a_lag_without_carry_over_is_told_from_lags_with_it():
    small, steep = [], []
    for seed in range(40):
        for carried, kept in (((1.2, 0.6), small), ((0.8,) * 11, steep)):
            planted = Planted(seed)
            it = fading(
                talks(planted, 2, seed, carried=carried), planted.references(4), "end", ("resid_post",), max_lag=4,
                draws=59, seed=seed,
            ).by_source["resid_post"]  # fmt: skip
            kept.append(it.p[:, 3:] if kept is small else it.slope_p)
    assert float((torch.stack(small) <= 0.05).float().mean()) < 0.09
    assert float((torch.stack(steep) <= 0.05).float().mean()) < 0.1


@pytest.mark.parametrize("neutral", [True, False])
def test_nothing_carried_over_is_found_as_often_as_the_level_says(neutral):
    """Though turns show their own label, labels resemble each other, and states drift with length."""
    small, steep = [], []
    for seed in range(60):
        planted = Planted(seed)
        planted.directions[:, 1] = 0.8 * planted.directions[:, 0] + 0.6 * planted.directions[:, 1]
        about = {"own": 2.0, "drift": 0.3, "neutral": neutral, "seed": seed}
        found = fading(
            talks(planted, 1, **about), planted.references(4), "end", ("resid_post",), max_lag=4, draws=59, seed=seed
        )
        it = found.by_source["resid_post"]
        small.append(it.p_corrected[:, 1:].min() <= 0.05)
        steep.append(it.slope_p_corrected.min() <= 0.05)
        assert it.half_life.isnan().all() or steep[-1]
    assert float(torch.stack(small).float().mean()) < 0.1
    assert float(torch.stack(steep).float().mean()) < 0.1


def test_neutral_conversations_at_the_same_turn_are_subtracted():
    found = {}
    for drift in (0.0, 1.0):
        planted = Planted(0)
        conversations = talks(planted, 2, drift=drift)
        references = planted.references(4)
        found[drift] = fading(conversations, references, "end", ("resid_post",))
    still, drifting = (found[drift].by_source["resid_post"] for drift in (0.0, 1.0))
    assert (drifting.projection - still.projection).abs().max() > 5
    torch.testing.assert_close(drifting.curve, still.curve, rtol=0, atol=1e-4)
    torch.testing.assert_close(drifting.by_turn, still.by_turn, rtol=0, atol=1e-4)
    assert "no neutral conversation" not in " ".join(found[1.0].notes)
    without = fading(conversations[:2], references, "end", ("resid_post",))
    assert "no neutral conversation" in " ".join(without.notes)
    assert without.by_source["resid_post"].neutral.isnan().all()
    short = [*conversations[:2], planted.conversation([None] * 5, drift=1.0, name="short")]
    cut = fading(short, references, "end", ("resid_post",))
    assert int(cut.pairs[0]) == 2 * 5
    assert cut.by_source["resid_post"].by_turn.isnan()[0].tolist() == [False] * 5 + [True] * 7


def test_the_effect_of_place_is_told_from_that_of_the_text_by_shuffled_orders():
    planted = Planted(0, noise=0.3)
    references = planted.references(5)
    fades = fading(shuffled(planted, 8, own=3.0, own_by_place=-0.2), references, "end").by_source["resid_post"].place
    # 0.2 a turn in units of the noise, and the other labels' mean stays
    torch.testing.assert_close(fades.slope, torch.full((LAYERS,), -0.2 / 0.3), rtol=0.4, atol=0)
    assert (fades.p_corrected <= 0.05).all()
    found = fading(shuffled(planted, 8), references, "end")
    assert found.interval_over == "orders"
    alone = fading(talks(planted, 2), references, "end")
    assert alone.by_source["resid_post"].place is None
    assert any("prompt.orders" in note for note in alone.notes)


def test_place_without_an_effect_is_found_as_often_as_the_level_says():
    small = []
    for seed in range(40):
        planted = Planted(seed)
        found = fading(
            shuffled(planted, 5, seed), planted.references(4), "end", ("resid_post",), max_lag=2, draws=59, seed=seed
        )
        small.append(found.by_source["resid_post"].place.p_corrected.min() <= 0.05)
    assert float(torch.stack(small).float().mean()) < 0.11


def test_a_half_life_is_that_of_the_exponential():
    lags = torch.arange(6)
    assert half_life(3 * 2 ** (-lags / 1.7), torch.ones(6)) == pytest.approx(1.7, rel=1e-4)
    assert half_life(-torch.ones(6), torch.ones(6)) != half_life(-torch.ones(6), torch.ones(6))  # NaN
    assert half_life(torch.ones(6), torch.ones(6)) != half_life(torch.ones(6), torch.ones(6))


def test_conversations_without_what_it_takes_are_told():
    planted = Planted(0)
    references = planted.references(3)
    found = fading([planted.conversation([None, None])], references, "end")
    assert (found.by_source, found.conversations) == ({}, [])
    assert "two labels" in found.reason
    # two turns: one lag has a pair at all, and nothing that was not said to compare with
    tiny = fading([planted.conversation(["joy", "fear"], name="tiny")], references, "end").by_source["resid_post"]
    assert not tiny.curve[:, 0].isnan().any()
    assert tiny.curve[:, 2:].isnan().all()
    with pytest.raises(StrataError, match="max_lag=0"):
        fading([], references, "end", max_lag=0)


def test_nan_states_give_nan_at_their_layer():
    planted = Planted(0)
    conversations = talks(planted, 1)
    conversations[0].snapshot_rows.arrays["resid_post"][1, 4, 0] = float("nan")
    it = fading(conversations, planted.references(3), "end").by_source["resid_post"]
    assert it.curve.isnan().all(1).tolist() == [False, True, False]
    assert it.p_corrected.isnan().all(1).tolist() == [False, True, False]
