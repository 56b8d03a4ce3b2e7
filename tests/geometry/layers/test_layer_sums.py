"""All sums of a stack together: sites, blocks, what belongs to which layer, states that are no numbers."""

import pytest
import torch

from src.errors import StrataError
from src.geometry.layers.profile import LayerSettings, LayerSums
from src.geometry.layers.sites import Site, sites_of
from src.hook_points import HookPoint
from src.text import Keep
from tests.fixtures.text_blocks import text_block

SETTINGS = LayerSettings(n_replicates=1, n_positions=4)


def points(*names):
    return [HookPoint.parse(name) for name in names]


def test_sites_are_in_the_order_of_computing_and_each_state_is_there_once():
    found = sites_of(
        points("resid_pre.1", "resid_post.0", "mlp_out.1", "attn_out.1", "resid_pre.0", "resid_pre.3", "resid_post.1")
    )
    names = ["resid_pre.0", "resid_post.0", "attn_out.1", "mlp_out.1", "resid_post.1", "resid_pre.3"]
    assert [site.name for site in found] == names
    assert [site.layer for site in found] == [-1, 0, 1, 1, 1, 2]


def filled(sites, states, cuts, keep=None):
    """Sums over texts of 5 tokens each, given in blocks of so many texts."""
    sums = LayerSums(sites, states[0].shape[1], SETTINGS)
    start = 0
    for n_texts in cuts:
        rows = slice(start, start + 5 * n_texts)
        sums.begin(text_block([5] * n_texts, None if keep is None else keep[rows]))
        for site, values in zip(sites, states, strict=True):
            sums.take(site, values[rows])
        start = rows.stop
    return sums


def test_blocks_do_not_matter():
    sites = sites_of(points("resid_post.0", "attn_out.1", "mlp_out.1", "resid_post.1"))
    states = torch.randn(4, 60, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
    whole, parts = (filled(sites, states, cuts).profile() for cuts in ([12], [1, 7, 4]))
    for one, other in zip(whole.sites, parts.sites, strict=True):
        assert float(one.norms.median[0]) == float(other.norms.median[0])
        assert float(one.cosines.within[0]) == pytest.approx(float(other.cosines.within[0]))
        assert float(one.cosines.across[0]) == pytest.approx(float(other.cosines.across[0]))
        assert float(one.dimensions.participation[0]) == pytest.approx(float(other.dimensions.participation[0]))
    assert whole.updates.keys() == parts.updates.keys() == {1}
    change = (states[3] - states[0]).norm(dim=-1) / states[0].norm(dim=-1)
    assert float(parts.updates[1].size[0]) == pytest.approx(float(change.mean()))
    share = states[1].norm(dim=-1) / (states[1].norm(dim=-1) + states[2].norm(dim=-1))
    assert float(parts.increments[1].attention_share[0]) == pytest.approx(float(share.mean()))


def test_layers_that_are_not_consecutive_have_no_update():
    sites = sites_of(points("resid_post.0", "resid_post.2"))
    assert filled(sites, torch.randn(2, 10, 4).unbind(), [2]).profile().updates == {}


def test_half_precision_does_not_overflow_norms():
    # spec C, edge case: 8 values of 60000 have a norm beyond the largest float16
    states = [torch.full((10, 8), 60000.0, dtype=torch.float16)]
    found = filled(sites_of(points("resid_post.0")), states, [2]).profile()
    assert float(found.sites[0].norms.mean[0]) == pytest.approx(60000 * 8**0.5, rel=1e-3)


def test_tokens_that_are_marked_as_no_numbers_are_left_out_and_others_refused():
    states = torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(0))
    states[0, 3] = torch.nan
    sites = sites_of(points("resid_post.0"))
    with pytest.raises(StrataError, match=r"resid_post.0 of 1 tokens is not finite.*float32"):
        filled(sites, states.unbind(), [2])
    keep = torch.zeros(10, dtype=torch.int64)
    keep[3] = int(Keep.NON_FINITE)
    found = filled(sites, states.unbind(), [2], keep).profile().sites[0]
    assert found.norms.n == 9
    assert bool(found.norms.mean.isfinite().all())
    assert bool(found.dimensions.participation.isfinite().all())


def test_no_counted_token_is_refused():
    keep = torch.full((10,), int(Keep.SPECIAL))
    with pytest.raises(StrataError, match="no token is counted"):
        filled(sites_of(points("resid_post.0")), [torch.randn(10, 4)], [2], keep).profile()


def test_the_final_norm_comes_last():
    assert sorted([Site.after_final_norm(3), *sites_of(points("resid_post.2"))])[-1].name == "final_norm"


def test_gram_matrices_beyond_the_memory_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(
        "src.geometry.layers.profile.psutil.virtual_memory", lambda: type("M", (), {"available": 10**6})
    )
    with pytest.raises(StrataError, match="choose fewer layers"):
        LayerSums(sites_of(points("resid_post.0")), 4096, SETTINGS)
