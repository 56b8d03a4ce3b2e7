"""Passes over the last positions that see the first ones through recorded keys and values."""

import pytest
import torch

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import PrefixRecorder, capture, prefix_cache, wrap_model
from tests.fixtures.tiny_models import N_LAYERS, model_config, ragged_batch, tiny_model

FINAL = HookPoint("resid_post", N_LAYERS - 1)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon", "opt"])
def test_the_last_positions_come_out_as_in_the_whole_pass(family: str) -> None:
    model = wrap_model(tiny_model(family), model_config())
    ids, mask = ragged_batch([12, 9, 10])
    expected = capture(model, ids, mask, [FINAL])[FINAL]
    recorder = PrefixRecorder(N_LAYERS, range(N_LAYERS), 7)
    recorded_pass = capture(model, ids, mask, [FINAL], recorder.cache)[FINAL]
    torch.testing.assert_close(recorded_pass[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
    sequence = torch.tensor([2, 0, 0, 1])
    for start in (1, 5, 7):
        cache = prefix_cache(recorder.recorded, N_LAYERS, sequence, start)
        for _ in range(2):  # nothing is stored in it
            found = capture(model, ids[sequence, start:], mask[sequence], [FINAL], cache)[FINAL]
            tokens = mask[sequence, start:].bool()
            torch.testing.assert_close(found[tokens], expected[sequence, start:][tokens], atol=1e-5, rtol=1e-5)


def test_only_what_was_asked_for_is_kept() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    ids, mask = ragged_batch([12, 9])
    recorder = PrefixRecorder(N_LAYERS, [1], 5)
    capture(model, ids, mask, [FINAL], recorder.cache)
    (keys, values), *others = recorder.recorded.values()
    assert not others
    assert keys.shape == values.shape == (2, 2, 5, 4)
    assert keys.untyped_storage().nbytes() == keys.numel() * 4
    with pytest.raises(StrataError, match="failed on cpu"):  # block 0 runs, and was not recorded
        capture(model, ids[:, 5:], mask, [FINAL], prefix_cache(recorder.recorded, N_LAYERS, torch.arange(2), 5))
