import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.model_selection import LeaveOneGroupOut, LeaveOneOut

from src.errors import StrataError
from src.scenarios.comparing.held_out import held_out_accuracy
from src.scenarios.comparing.separability import separability
from src.scenarios.states import References, ReferenceText
from tests.fixtures.planted_conversations import LAYERS, WIDTH, Planted, rows


def slow_accuracy(texts, truth, folds, middle):
    """Nearest centroid by cosine, one fold after the other, as anybody would write it."""
    right = np.zeros(len(truth))
    for train, test in folds:
        means = np.stack([texts[train][truth[train] == label].mean(0) for label in np.unique(truth)])
        centre = means.mean(0) if middle is None else middle
        for row in test:
            state, moved = texts[row] - centre, means - centre
            cosine = moved @ state / np.linalg.norm(moved, axis=1) / np.linalg.norm(state)
            right[row] = cosine.argmax() == truth[row]
    return right.mean()


@pytest.mark.parametrize("neutral", [False, True])
@pytest.mark.parametrize("held_out", ["text", "example"])
def test_accuracy_equals_scikit_learns_folds_for_every_labelling(held_out, neutral):
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(2, 12, 9, generator=generator).double() + 3
    blocks = torch.arange(12) // 3 if held_out == "example" else torch.arange(12)
    labellings = torch.stack([torch.cat([torch.randperm(3, generator=generator) for _ in range(4)]) for _ in range(40)])
    middle = torch.randn(2, 1, 9, generator=generator).double() if neutral else None
    found, _ = held_out_accuracy(texts, labellings, 3, blocks, middle)
    for layer in (0, 1):
        for labelling, truth in enumerate(labellings.numpy()):
            split = LeaveOneGroupOut() if held_out == "example" else LeaveOneOut()
            folds = split.split(truth, groups=blocks.numpy() if held_out == "example" else None)
            centre = middle[layer, 0].numpy() if neutral else None
            expected = slow_accuracy(texts[layer].numpy(), truth, folds, centre)
            assert found[labelling, layer].item() == pytest.approx(expected)


def test_planted_labels_are_found():
    planted = Planted(0, noise=0.2)
    found = separability(planted.references(5, neutral=3), "end", ("resid_post", "attn_out"))
    assert (found.held_out, found.chance, found.reason, found.notes) == ("example", 0.25, None, [])
    assert list(found.by_source) == ["resid_post", "attn_out"]
    it = found.by_source["resid_post"]
    assert it.accuracy.tolist() == [1] * LAYERS
    assert it.p_corrected.tolist() == [1 / 1000] * LAYERS
    assert torch.equal(it.nearest[0], found.truth)
    assert it.confusion(found.truth, 4)[0].tolist() == (5 * torch.eye(4)).long().tolist()
    assert ((it.null_mean - 0.25).abs() < 0.03).all()
    wilson = binomtest(20, 20).proportion_ci(0.95, "wilson")
    assert it.low.tolist() == pytest.approx([wilson.low] * LAYERS)


@pytest.mark.parametrize("examples", [3, None])
def test_nothing_planted_is_found_as_often_as_the_level_says(examples):
    small = []
    for seed in range(80):
        planted = Planted(seed)
        references = planted.references(examples or 4, strength=0.0)
        if examples is None:  # unequal numbers of texts
            kept = [row for row in range(16) if row not in (0, 1, 4)]
            references = References([references.texts[row] for row in kept], {"end": references.rows["end"].take(kept)})
        found = separability(references, "end", ("resid_post",), draws=59, seed=seed)
        assert found.held_out == ("text" if examples is None else "example")
        small.append(found.by_source["resid_post"].p_corrected.min() <= 0.05)
    assert 0.0 < float(torch.stack(small).float().mean()) < 0.1


def test_wordings_that_labels_share_do_not_drive_texts_to_other_labels():
    planted = Planted(0, noise=0.1)
    references = planted.references(4)
    wordings = 1.4 * planted.draw(LAYERS, 4, WIDTH)
    references.rows["end"].arrays["resid_post"] += wordings.repeat(1, 4, 1)
    by_text = separability(references, "end", held_out="text").by_source["resid_post"]
    by_example = separability(references, "end").by_source["resid_post"]
    assert (by_text.accuracy < 0.25).all()  # the third example is nearest to the other labels' third examples
    assert (by_example.accuracy > 0.6).all()
    assert (by_example.p_corrected <= 0.05).all()


def test_a_state_that_all_texts_share_counts_as_chance():
    planted = Planted(0)
    references = planted.references(4)
    # the same token, up to a rounding that even tells the labels
    references.rows["end"].arrays["resid_post"][0] = planted.common[0] + 1e-6 * torch.arange(16)[:, None]
    it = separability(references, "end").by_source["resid_post"]
    assert it.accuracy.tolist() == pytest.approx([0.25, 1, 1])
    assert it.p[0] == 1
    assert (it.nearest[0] == -1).all()


def test_nan_states_give_nan_at_their_layer():
    references = Planted(0).references(3)
    references.rows["end"].arrays["resid_post"][1, 4, 2] = math.nan
    it = separability(references, "end").by_source["resid_post"]
    for array in (it.accuracy, it.low, it.p, it.p_corrected, it.null_mean):
        assert array.isnan().tolist() == [False, True, False]


def test_too_few_texts_are_told():
    planted = Planted(0)
    alone = separability(planted.references(1), "end")
    assert alone.by_source == {}
    assert "give reference states several examples" in alone.reason
    two = separability(Planted(0, labels=("joy", "fear")).references(2), "end")
    assert any("shuffled in 2 ways only" in note for note in two.notes)
    three = [*planted.references(2).texts, ReferenceText("apathy", 0, False, "", 1)]
    states = torch.cat([planted.references(2).rows["end"].get("resid_post"), torch.ones(LAYERS, 1, WIDTH)], 1)
    found = separability(References(three, {"end": rows(states)}), "end")
    assert found.labels == planted.labels
    assert found.notes == ["apathy: only one text, so left out"]


def test_unequal_numbers_can_not_hold_out_examples():
    references = Planted(0).references(3)
    uneven = replace(references, texts=references.texts[:-1], rows={"end": references.rows["end"].take(range(11))})
    with pytest.raises(StrataError, match="held_out=text"):
        separability(uneven, "end", held_out="example")
