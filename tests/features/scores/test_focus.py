"""Peaks and entropies of direct logits against a loop over features."""

import numpy as np
import pytest
import torch
from scipy.special import entr, softmax

from src.features.scores import focus as module
from src.features.scores.focus import vocabulary_focus
from src.models.unembedding import Unembedding


@pytest.mark.parametrize("logits_at_once", [40, 10**6])
def test_focus_is_that_of_a_loop_over_features(logits_at_once, monkeypatch):
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", logits_at_once)
    rng = np.random.default_rng(0)
    decoder, fold, weight = rng.standard_normal((9, 6)), rng.standard_normal((6, 6)), rng.standard_normal((20, 6))
    found = vocabulary_focus(
        torch.from_numpy(decoder), Unembedding(torch.from_numpy(fold), torch.from_numpy(weight)), n_top=4
    )
    for f in range(9):
        v = weight @ (decoder[f] @ fold)
        assert found.peak[f] == pytest.approx((v.max() - v.mean()) / (v.std() + 1e-6), abs=1e-9)
        assert found.entropy[f] == pytest.approx(entr(softmax(v)).sum(), abs=1e-9)
        assert found.promoted[f].tolist() == np.argsort(-v)[:4].tolist()
        assert found.suppressed[f].tolist() == np.argsort(v)[:4].tolist()
