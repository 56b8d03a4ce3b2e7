"""The offset of a residual modulator's targets: kept with it, not trained, and in no token that is not known."""

from pathlib import Path

import pytest
import torch

from src.errors import StrataError
from src.modulators.residual import ResidualModulator
from src.modulators.saving import load_modulator, save_modulator


def _modulator(match_norms: bool = False) -> ResidualModulator:
    draws = torch.Generator().manual_seed(0)
    table, projection = torch.randn(9, 3, generator=draws), torch.randn(5, 3, generator=draws)
    known, offset = torch.arange(9) < 6, torch.arange(5.0)
    return ResidualModulator(table, projection, known, [0, 1], alpha=0.25, match_norms=match_norms, offset=offset)


def test_targets_have_it() -> None:
    """BUG G-5: the mean that a fit was made about is mixed in."""
    modulator, stream, ids = _modulator(), torch.randn(1, 9, 5), torch.arange(9)[None]
    mixed = modulator(stream, ids, 1)
    target = modulator.table @ modulator.projection.T + torch.arange(5.0)
    torch.testing.assert_close(mixed[0, :6], (0.75 * stream[0] + 0.25 * target)[:6])
    assert torch.equal(mixed[0, 6:], stream[0, 6:])


def test_it_is_saved_and_not_trained(tmp_path: Path) -> None:
    modulator = _modulator()
    save_modulator(tmp_path, modulator)
    loaded = load_modulator(tmp_path)
    assert isinstance(loaded, ResidualModulator)
    assert torch.equal(loaded.offset, modulator.offset)
    assert "offset" not in dict(loaded.named_parameters())


def test_an_offset_of_another_width_is_refused() -> None:
    with pytest.raises(StrataError, match=r"offset \(4,\) do not fit"):
        ResidualModulator(torch.zeros(9, 3), torch.zeros(5, 3), torch.ones(9).bool(), [0], offset=torch.zeros(4))
