import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from src.scenarios.comparing.labelled import STATISTICS, labelled_messages
from tests.fixtures.planted_conversations import LAYERS, Planted


def talks(planted, n, turns=8, **about):
    """Conversations with labels in random orders."""
    found = []
    for number in range(n):
        places = torch.rand(turns, generator=planted.generator).argsort() % len(planted.labels)
        spoken = [planted.labels[place] for place in places.tolist()]
        found.append(planted.conversation(spoken, name=f"talk_{number}", **about))
    return found


def test_planted_labels_show_in_one_conversation():
    planted = Planted(0)
    found = labelled_messages(talks(planted, 1, 12), planted.references(5), "end")
    assert (len(found.messages), found.chance) == (12, 0.25)
    assert any("no intervals" in note for note in found.notes)
    it = found.by_source["resid_post"]
    for name in STATISTICS:
        tested = getattr(it, name)
        assert (tested.p_corrected <= 0.01).all()
        assert tested.low.isnan().all()
    assert (it.accuracy.value > 0.7).all()
    assert (it.auc.value > 0.9).all()
    assert ((it.auc.null_mean - 0.5).abs() < 0.05).all()
    assert (it.excess.value > 2).all()


def test_statistics_equal_their_definitions():
    planted = Planted(1, noise=1.5)
    found = labelled_messages(talks(planted, 3), planted.references(5), "end", draws=9)
    it, truth = found.by_source["resid_post"], found.truth
    rows = range(len(truth))
    for layer in range(LAYERS):
        cosine, along = it.cosine[layer], it.projection[layer]
        assert it.accuracy.value[layer].item() == pytest.approx((cosine.argmax(1) == truth).float().mean().item())
        area = np.mean([roc_auc_score(truth == label, along[:, label]) for label in range(4)])
        assert it.auc.value[layer].item() == pytest.approx(area)
        others = [(along[row].sum() - along[row, truth[row]]) / 3 for row in rows]
        excess = torch.stack([along[row, truth[row]] - others[row] for row in rows]).mean()
        assert it.excess.value[layer].item() == pytest.approx(excess.item(), rel=1e-5)


def test_labels_that_do_not_show_are_found_as_often_as_the_level_says():
    small = {name: [] for name in STATISTICS}
    for seed in range(80):
        planted = Planted(seed)
        # each label in two neighbouring turns, whose states are alike for a reason that is not the label
        conversation = planted.conversation(
            [label for label in planted.labels for _ in range(2)], own=0.0, drift=0.3, name="talk"
        )
        found = labelled_messages([conversation], planted.references(4), "end", ("resid_post",), draws=59, seed=seed)
        for name in STATISTICS:
            small[name].append(getattr(found.by_source["resid_post"], name).p_corrected.min() <= 0.05)
    for name in STATISTICS:
        assert float(torch.stack(small[name]).float().mean()) < 0.1


def test_an_offset_of_the_whole_conversation_is_taken_out_by_its_own_centre():
    planted = Planted(2)
    (conversation,) = talks(planted, 1, 12)
    conversation.snapshot_rows.arrays["resid_post"] += 6 * planted.directions[:, 1:2]  # all a little fearful
    references = planted.references(5)
    by_references = labelled_messages([conversation], references, "end").by_source["resid_post"]
    by_own = labelled_messages([conversation], references, "end", centre_on="conversation").by_source["resid_post"]
    assert (by_references.accuracy.value < 0.5).all()
    assert (by_own.accuracy.value > 0.7).all()


def test_intervals_are_over_conversations():
    planted = Planted(0, noise=1.0)
    references = planted.references(6)
    few = labelled_messages(talks(planted, 6), references, "end")
    assert any("few conversations" in note for note in few.notes)
    many = labelled_messages(talks(planted, 40), references, "end").by_source["resid_post"].excess
    it = few.by_source["resid_post"].excess
    assert ((it.low < it.value) & (it.value < it.high)).all()
    assert ((many.high - many.low) < (it.high - it.low)).all()
    # the standard error over conversations, from their means
    own = few.by_source["resid_post"].projection.gather(-1, few.truth[None, :, None].expand(LAYERS, -1, 1))[..., 0]
    others = (few.by_source["resid_post"].projection.sum(-1) - own) / 3
    error = (own - others).unflatten(1, (6, 8)).mean(-1).std(-1, unbiased=False) / math.sqrt(6)
    torch.testing.assert_close(it.high - it.low, 2 * 1.96 * error, rtol=0.2, atol=0)


def test_controls_and_shuffled_orders_are_left_out_and_nothing_to_test_is_told():
    planted = Planted(0)
    references = planted.references(3)
    shuffled = planted.conversation(["joy", "fear"], order=[1, 0], name="order")
    neutral = planted.conversation([None, None], name="plain")
    found = labelled_messages([shuffled, neutral], references, "end")
    assert (found.by_source, found.messages) == ({}, [])
    assert "two labels that are among the references'" in found.reason
    one = labelled_messages([planted.conversation(["joy", "joy", None])], references, "end")
    assert one.reason is not None


def test_nan_states_give_nan_at_their_layer():
    planted = Planted(0)
    (conversation,) = talks(planted, 1)
    conversation.snapshot_rows.arrays["resid_post"][1, 3, 0] = math.nan
    it = labelled_messages([conversation], planted.references(3), "end").by_source["resid_post"]
    for name in STATISTICS:
        tested = getattr(it, name)
        assert tested.value.isnan().tolist() == tested.p.isnan().tolist() == [False, True, False]
