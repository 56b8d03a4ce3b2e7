from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from src.errors import StrataError
from src.scenarios.comparing.centring import centred_cosines, identical_share, similarities
from src.scenarios.comparing.directions import contrast_directions
from src.scenarios.comparing.whitening import FEWEST_DEVIATIONS, Whitening, whitening
from src.scenarios.states import References
from tests.fixtures.planted_conversations import LAYERS, WIDTH, Planted, rows


def a_run(planted, spoken, **about):
    return next(planted.conversation(spoken, **about).runs())


def test_centring_takes_the_common_part_out():
    planted = Planted(0, noise=0.1)
    references, run = planted.references(3, neutral=4), a_run(planted, ["joy", "pride"])
    found = similarities(run, references, "end")
    assert (found.centre, found.labels) == ("neutral", planted.labels)
    it = found.by_source["resid_post"]
    assert (it.raw > 0.9).all()  # all share the common part
    assert (it.common_share > 0.9).all()
    assert it.best()[:, :2].tolist() == [[0, 2]] * LAYERS
    assert (it.margin()[:, :2] > 0.5).all()
    assert (it.margin("raw") < 0.1).all()
    texts, states = references.rows["end"].get("resid_post"), run.snapshots("resid_post", "end")
    middle = texts[:, references.neutral].mean(1)
    joy = texts[:, :3].mean(1)
    expected = torch.cosine_similarity(states[:, 1] - middle, joy - middle, dim=-1)
    torch.testing.assert_close(it.centred[:, 1, 0], expected, atol=1e-6, rtol=0)


def test_without_neutral_texts_each_label_counts_the_same_in_the_centre():
    planted = Planted(0, labels=("joy", "fear"))
    references = planted.references(3)
    uneven = References(references.texts[:4], {"end": references.rows["end"].take([0, 1, 2, 3])})
    run = a_run(planted, ["joy"])
    found = similarities(run, uneven, "end")
    assert found.centre == "labels"
    cosine = found.by_source["resid_post"].centred
    torch.testing.assert_close(cosine[..., 0], -cosine[..., 1])  # two labels lie on both sides of such a centre


def test_states_of_one_template_token_are_told_as_identical():
    planted = Planted(0)
    references, run = planted.references(3), a_run(planted, ["joy", "fear"])
    states, texts = run.conversation.snapshot_rows.arrays["resid_post"], references.rows["end"].arrays["resid_post"]
    # layer 0: the same token everywhere, up to the rounding of a forward pass
    states[0], texts[0] = (planted.common[0] * (1 + 1e-6 * planted.draw(1)) for _ in range(2))
    it = similarities(run, references, "end").by_source["resid_post"]
    assert it.vacuous.tolist() == [True, False, False]
    torch.testing.assert_close(it.raw[0], torch.ones_like(it.raw[0]))
    assert (it.centred[0] == 0).all()  # and not the cosine of two roundings
    assert (it.margin()[0] == 0).all()
    assert torch.equal(it.raw[0], it.raw[0].clamp(max=1.0 + 1e-6))


def test_nan_states_give_nan_and_no_best_label():
    planted = Planted(0)
    references, run = planted.references(4), a_run(planted, ["joy", "fear"])
    run.conversation.snapshot_rows.arrays["resid_post"][1, 0] = float("nan")
    it = similarities(run, references, "end").by_source["resid_post"]
    assert it.centred[1, 0].isnan().all()
    assert not it.centred[[0, 2]].isnan().any()
    assert it.best()[1].tolist() == [-1, 1, 1]
    assert it.margin()[1, 0].isnan()
    assert identical_share(torch.full((1, 1, 2), float("nan")), torch.ones(1, 1, 2)).isnan().all()


def test_a_zero_vector_has_cosine_0():
    zero, one = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 2, 3]]])
    assert centred_cosines(zero, one, torch.zeros(1, 1, 3)).item() == 0


def test_whitening_equals_scikit_learns_ledoit_wolf():
    states = torch.randn(2, 24, 50, generator=torch.Generator().manual_seed(0)).double() * torch.linspace(0.1, 3, 50)
    groups = ["a"] * 10 + ["b"] * 14
    found = whitening(states + 4, groups)
    assert isinstance(found, Whitening)
    deviations = states[1].clone()
    deviations[:10] -= deviations[:10].mean(0)
    deviations[10:] -= deviations[10:].mean(0)
    fitted = LedoitWolf(assume_centered=True).fit(deviations.numpy())
    assert found.shrinkage[1].item() == pytest.approx(fitted.shrinkage_)
    values, vectors = np.linalg.eigh(fitted.covariance_)
    inverse_root = vectors @ np.diag(values**-0.5) @ vectors.T
    some = torch.randn(2, 3, 50).double()
    np.testing.assert_allclose(found(some)[1], some[1].numpy() @ inverse_root, atol=1e-10)


def test_whitened_cosines_need_enough_texts_and_say_so():
    planted = Planted(0)
    run = a_run(planted, ["joy"])
    few = similarities(run, planted.references(2), "end")
    assert few.no_whitening is not None
    assert "give reference states more examples" in few.no_whitening
    assert few.by_source["resid_post"].of("whitened").isnan().all()
    many = similarities(run, planted.references(1 + FEWEST_DEVIATIONS // 4 + 1), "end")
    assert many.no_whitening is None
    assert many.by_source["resid_post"].best("whitened")[:, 0].tolist() == [0] * LAYERS


def test_whitening_takes_down_what_differs_within_labels():
    planted = Planted(3, noise=0.05)
    references, run = planted.references(8), a_run(planted, ["joy"], own=3.0)
    # a nuisance of the texts, along a direction of its own
    nuisance = planted.draw(LAYERS, 1, WIDTH)
    references.rows["end"].arrays["resid_post"] += planted.draw(LAYERS, 32, 1) * nuisance
    run.conversation.snapshot_rows.arrays["resid_post"] += 3 * nuisance
    it = similarities(run, references, "end").by_source["resid_post"]
    assert (it.whitened[:, 0, 0] > 0.8).all()
    assert (it.centred[:, 0, 0] < 0.8).all()


def test_directions_are_unit_vectors_between_means():
    planted = Planted(0)
    references = planted.references(6, neutral=3)
    texts = references.rows["end"].get("resid_post").double()
    means = torch.stack([texts[:, 6 * k : 6 * k + 6].mean(1) for k in range(4)], 1)
    for contrast, other, names in (
        ("rest", means[:, 1:].mean(1), "joy - rest"),
        ("neutral", texts[:, 24:].mean(1), "joy - neutral"),
        ("pairs", means[:, 1], "joy - fear"),
    ):
        found = contrast_directions((0, 1, 2), references, texts, contrast)
        assert found.names[0] == names
        difference = means[:, 0] - other
        torch.testing.assert_close(found.units[:, 0], difference / difference.norm(dim=-1, keepdim=True))
        # 0 at the other side, the label's mean at its reach
        torch.testing.assert_close(found.project(other[:, None])[:, 0, 0], torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.project(means[:, :1])[:, 0, 0], found.reach[:, 0])
    assert len(contrast_directions((0, 1, 2), references, texts, "pairs").names) == 6


def test_projections_are_in_units_of_the_spread_between_texts():
    planted = Planted(0, labels=("joy", "fear"))
    references = planted.references(200)
    texts = references.rows["end"].get("resid_post")
    found = contrast_directions((0, 1, 2), references, texts)
    assert found.scale == "within labels"
    along = found.project(texts)
    for rows_of_label in (references.of("joy"), references.of("fear")):
        torch.testing.assert_close(along[:, rows_of_label].std(1), torch.ones(3, 2), atol=0.15, rtol=0)
    alone = contrast_directions((0, 1, 2), planted.references(1), planted.references(1).rows["end"].get("resid_post"))
    assert alone.scale == "all texts"


def test_directions_without_anything_to_contrast_with():
    references = Planted(0, labels=("joy",)).references(3)
    texts = references.rows["end"].get("resid_post")
    with pytest.raises(StrataError, match="two labels"):
        contrast_directions((0, 1, 2), references, texts)
    with pytest.raises(StrataError, match="neutral: true"):
        contrast_directions((0, 1, 2), references, texts, "neutral")
    planted = Planted(0)
    same = replace(planted.references(2), rows={"end": rows(torch.ones(LAYERS, 8, WIDTH))})
    assert contrast_directions((0, 1, 2), same, same.rows["end"].get("resid_post")).units.isnan().all()
