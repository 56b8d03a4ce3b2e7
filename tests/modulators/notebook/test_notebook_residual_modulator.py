"""The notebook's residual modulator."""

import torch

from src.modulators.beginning.beginning import Beginning
from src.modulators.notebook.residual import notebook_residual


def _start() -> Beginning:
    draws = torch.Generator().manual_seed(0)
    known = torch.tensor([True] * 20 + [False] * 80)
    table = 3 * torch.randn(100, 64, generator=draws) * known[:, None]
    return Beginning(table, torch.randn(16, 64, generator=draws), torch.ones(16), known)


def test_it_has_the_published_number_of_parameters() -> None:
    assert notebook_residual(None, 32_128, 512, 64, range(6), 0.01, True, True, 0).n_trained == 2_088_966


def test_it_mixes_a_target_of_any_length_into_every_token() -> None:
    modulator = notebook_residual(None, 100, 16, 64, (1,), 0.3, True, True, 0)
    ids = torch.arange(6).view(2, 3)
    residual = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1))
    target = modulator.table[ids] @ modulator.projection.T
    torch.testing.assert_close(modulator(residual, ids, 1), 0.7 * residual + 0.3 * target)
    assert modulator(residual.bfloat16(), ids, 1).dtype == torch.bfloat16


def test_rows_without_a_match_keep_their_random_start() -> None:
    """BUG G-3: norms of 7.98 against 1."""
    modulator = notebook_residual(_start(), 100, 16, 64, (0,), 0.01, True, True, 0)
    lengths = modulator.table.norm(dim=1)
    torch.testing.assert_close(lengths[:20], torch.ones(20))
    assert 7.5 < float(lengths[20:].detach().mean()) < 8.5
    assert bool(modulator.known.all())
    # of P there are random numbers of 0.01
    assert 0.009 < float(modulator.projection.detach().std()) < 0.011


def test_a_fitted_map_loses_its_mean() -> None:
    """BUG G-5."""
    start = _start()
    modulator = notebook_residual(start, 100, 16, 64, (0,), 0.01, True, True, 0, fitted=True)
    assert torch.equal(modulator.projection, start.projection)
    assert not modulator.offset.any()


def test_weight_decay_pulls_a_strength_to_a_half() -> None:
    """BUG G-11: with the notebook's settings, 0.0100 to 0.0107 by decay alone, and no further than 0.041 by Adam."""
    logit = torch.nn.Parameter(torch.tensor(0.01).logit())
    optimiser = torch.optim.AdamW([logit], lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    total = 0.0
    for _ in range(10):
        rate = optimiser.param_groups[0]["lr"]
        total += 264 * rate
        # what AdamW does to a parameter without a gradient
        logit.data *= (1 - 0.01 * rate) ** 264
        optimiser.step()
        schedule.step()
    assert 1.44 < total < 1.46
    decayed = float(logit.detach().sigmoid())
    assert 0.0106 < decayed < 0.0108
    assert 0.040 < float((torch.tensor(0.01).logit() + total).sigmoid()) < 0.042
