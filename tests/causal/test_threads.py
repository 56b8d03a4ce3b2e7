"""What is asked of a model before it is edited must not hang on how many threads round its sums."""

import warnings
from pathlib import Path

import pytest
import torch

from src.causal.interventions import KeepClean
from src.causal.perplexity import Condition, ConditionScorer
from src.hook_points import HookPoint
from src.models import load_model
from tests.fixtures.tiny_models import model_config

TESTBED = Path(__file__).resolve().parents[2] / "testbed" / "models" / "base"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_testbed_is_causal_and_can_be_replayed_with_any_number_of_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = load_model(model_config(path=str(TESTBED), dtype="float32"), "cpu")
        conditions = [Condition(str(layer), KeepClean(), HookPoint("resid_post", layer)) for layer in range(5)]
        ids = torch.arange(40).view(2, 20) + 100
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that it can't be replayed is a warning
            scores = ConditionScorer(model, conditions).score(ids, torch.ones_like(ids))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(scores.nll, scores.clean_nll.expand_as(scores.nll), atol=1e-5, rtol=1e-5)
