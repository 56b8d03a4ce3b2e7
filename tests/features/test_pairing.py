"""The check that an SAE belongs to a hook: its numbers, its intervals, its hints."""

import numpy as np
import pytest
import torch

from src.activations.passes import Rows
from src.errors import StrataError
from src.features.pairing import check_pairing, measure_pairings
from src.features.sae import load_sae
from src.hook_points import HookPoint
from src.models.capture import capture
from src.models.language_model import wrap_model
from src.text import Keep
from tests.fixtures.saes import (
    D,
    gemma_scope_weights,
    planted_gemma_scope,
    planted_rows,
    sae_config,
    sparse_latents,
    standard_sae,
    write_gemma_scope,
)
from tests.fixtures.stores import make_store
from tests.fixtures.tiny_models import D_MODEL, N_VOCAB, model_config, tiny_model

RESID, MLP, PRE = HookPoint("resid_post", 1), HookPoint("mlp_out", 1), HookPoint("resid_pre", 2)
LENGTHS = [30, 25, 40, 35, 20, 30, 25, 35, 40, 20]
N = sum(LENGTHS)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """An SAE for mlp_out.1, and a store where mlp_out.1 holds its features (and noise), and resid_post.1 does not."""
    root = tmp_path_factory.mktemp("planted")
    weights, draws = planted_gemma_scope()
    write_gemma_scope(root / "sae", weights)
    latents = sparse_latents(draws, N)
    mlp = planted_rows(weights, latents) + 0.05 * draws.standard_normal((N, D)).astype(np.float32)
    resid = (40 + 6 * draws.standard_normal((N, D))).astype(np.float32)
    keep = np.zeros(N, np.uint8)
    first = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    keep[first] = Keep.BOS
    mlp[first] = 1e4  # what does not count must not matter
    store = make_store(root / "store", {RESID: resid, MLP: mlp}, LENGTHS, keep=keep)
    return root / "sae", store, weights, mlp, keep, latents


def loaded(folder, point=MLP):
    return load_sae(sae_config(path=str(folder), hook=point.hook, layer=point.layer))


def test_fvu_and_l0_are_those_of_all_counted_rows(planted):
    folder, store, weights, mlp, keep, latents = planted
    sae = loaded(folder)
    found = check_pairing(sae, store)
    x = mlp[keep == Keep.COUNTED].astype(float)
    before = x @ weights["W_enc"].astype(float) + weights["b_enc"]
    features = np.where(before > weights["threshold"], before, 0)
    error = x - features @ weights["W_dec"] - weights["b_dec"]
    expected = (error**2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert found.fvu.value == pytest.approx(expected, rel=1e-5)
    assert found.l0.value == pytest.approx((features != 0).sum(1).mean(), rel=1e-9)
    assert found.l0.value == pytest.approx((latents[keep == Keep.COUNTED] > 0).sum(1).mean(), abs=0.02)
    assert (found.point, found.n_rows, found.n_documents) == (MLP, N - len(LENGTHS), len(LENGTHS))
    assert 0 < found.fvu.low < found.fvu.value < found.fvu.high < 0.02


def test_batches_and_parts_do_not_change_the_numbers(planted, monkeypatch):
    folder, store, *_ = planted
    sae = loaded(folder)
    whole = measure_pairings(sae, store, [MLP])[MLP]
    monkeypatch.setattr("src.features.training.reconstruction._FEATURES_AT_ONCE", 7 * sae.n_features)
    pieces = measure_pairings(sae, store, [MLP])[MLP]
    for name in ("fvu", "l0"):
        one, other = getattr(whole, name), getattr(pieces, name)
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high), rel=1e-6)


def test_a_wrong_hook_is_refused_with_the_numbers_and_the_right_one(planted):
    folder, store, *_ = planted
    with pytest.raises(StrataError, match=r"does not fit resid_post\.1 of .*: FVU \d.*, L0 \d") as caught:
        check_pairing(loaded(folder), store, RESID)
    assert "It fits mlp_out.1 (FVU 0.00" in str(caught.value)
    assert f"over {N - len(LENGTHS)} rows of {len(LENGTHS)} documents" in str(caught.value)


def test_the_sae_s_own_hook_is_the_default_and_no_hook_may_fit(planted, tmp_path):
    _, store, *_ = planted
    standard_sae("blocks.1.hook_resid_post", model_name="some-model").save_model(tmp_path)
    sae = load_sae(sae_config(path=str(tmp_path)))
    message = r"reads blocks\.1\.hook_resid_post of some-model\. No hook that is stored there fits; the nearest is"
    with pytest.raises(StrataError, match=message):
        check_pairing(sae, store)


def test_the_only_hook(planted, tmp_path):
    folder, *_ = planted
    rows = np.random.default_rng(2).normal(40, 6, (N, D)).astype(np.float32)
    store = make_store(tmp_path / "store", {RESID: rows}, LENGTHS)
    with pytest.raises(StrataError, match="No other hook is stored"):
        check_pairing(loaded(folder, RESID), store)


def test_max_fvu_decides(planted):
    folder, store, *_ = planted
    value = check_pairing(loaded(folder), store).fvu.value
    with pytest.raises(StrataError, match=r"sae\.max_fvu="):
        check_pairing(loaded(folder), store, max_fvu=0.9 * value)


def test_a_neighbour_that_passes_the_limit_is_refused_where_the_right_hook_is_beside_it(planted, tmp_path):
    folder, _, weights, *_ = planted
    draws = np.random.default_rng(3)
    right = planted_rows(weights, sparse_latents(draws, N))
    after, later = (right + scale * draws.standard_normal((N, D)).astype(np.float32) for scale in (0.3, 0.5))
    layers = [HookPoint("resid_post", layer) for layer in range(4)]
    store = make_store(tmp_path / "store", dict(zip(layers, (after, right, after, later), strict=True)), LENGTHS)
    sae = loaded(folder, layers[1])
    assert check_pairing(sae, store).fvu.value < 1e-6
    for wrong in layers[::2] + layers[3:]:
        found = check_pairing(sae, store, wrong, max_fvu=None)
        assert 0.01 < found.fvu.value < 0.5
        with pytest.raises(StrataError, match=rf"does not fit {wrong}.*It fits resid_post\.1 \(FVU .*max_fvu=null"):
            check_pairing(sae, store, wrong)
    # without the right hook, the limit alone decides
    alone = make_store(tmp_path / "alone", {layers[2]: after}, LENGTHS)
    assert check_pairing(sae, alone, layers[2]).fvu.value < 0.5


def test_inputs_of_a_block_are_outputs_of_the_one_before(planted, tmp_path):
    folder, _, weights, *_ = planted
    rows = planted_rows(weights, sparse_latents(np.random.default_rng(5), N))
    store = make_store(tmp_path / "store", {RESID: rows}, LENGTHS)
    assert check_pairing(loaded(folder, PRE), store).point == RESID
    with pytest.raises(StrataError, match=r"has no resid_pre\.0"):
        check_pairing(loaded(folder, HookPoint("resid_pre", 0)), store)


def test_rows_in_memory(planted):
    folder, store, _, mlp, keep, _ = planted
    document = torch.from_numpy(np.repeat(np.arange(len(LENGTHS)), LENGTHS))
    counted = torch.from_numpy(keep == Keep.COUNTED)
    rows = Rows({MLP: torch.from_numpy(mlp)}, document, torch.zeros_like(document), counted, ~counted)
    expected = check_pairing(loaded(folder), store)
    found = check_pairing(loaded(folder), rows)
    assert (found.fvu.value, found.fvu.low) == pytest.approx((expected.fvu.value, expected.fvu.low), rel=1e-6)
    assert found.n_documents == len(LENGTHS)
    with pytest.raises(StrataError, match=r"these rows lack resid_post\.1; they have mlp_out\.1"):
        check_pairing(loaded(folder), rows, RESID)
    with pytest.raises(StrataError, match="no counted rows"):
        check_pairing(loaded(folder), Rows(rows.activations, document, document, counted & False, counted))
    constant = Rows({MLP: torch.ones(N, D)}, document, document, counted, ~counted)
    with pytest.raises(StrataError, match=r"mlp_out\.1 is the same in all"):
        check_pairing(loaded(folder), constant)


def test_rows_of_a_store_are_bounded_and_spread_over_its_parts(tmp_path):
    weights, draws = planted_gemma_scope()
    write_gemma_scope(tmp_path / "sae", weights)
    lengths = [10] * 100
    rows = planted_rows(weights, sparse_latents(draws, 1000))
    rows[500:] += 50  # the later half does not fit
    store = make_store(tmp_path / "store", {MLP: rows}, lengths, sequences_per_part=10)
    found = measure_pairings(loaded(tmp_path / "sae"), store, [MLP], max_rows=160)[MLP]
    assert 160 <= found.n_rows <= 240
    assert found.fvu.value > 0.5
    everything = measure_pairings(loaded(tmp_path / "sae"), store, [MLP], max_rows=10**9)[MLP]
    assert everything.n_rows == 800  # eight parts of ten


def test_another_width(planted, tmp_path):
    _, store, *_ = planted
    standard_sae("blocks.1.hook_mlp_out", d=D + 4, model_name="other").save_model(tmp_path)
    with pytest.raises(StrataError, match=r"width 16 of other; those of .* have width 12"):
        check_pairing(load_sae(sae_config(path=str(tmp_path))), store)


def test_massive_means_cost_no_digits(tmp_path):
    weights, draws = planted_gemma_scope()
    weights["b_dec"] += 3000
    weights["b_enc"] = -(weights["W_dec"].astype(float) @ weights["b_dec"]).astype(np.float32)
    write_gemma_scope(tmp_path / "sae", weights)
    rows = planted_rows(weights, sparse_latents(draws, N))
    found = check_pairing(loaded(tmp_path / "sae"), make_store(tmp_path / "store", {MLP: rows}, LENGTHS))
    assert found.fvu.value < 1e-4


def test_intervals_cover_the_truth():
    """FVU over documents that differ: about 95 % of the intervals hold the value of the population."""
    sae, covered, n_trials = HalfSae(), 0, 120
    for trial in range(n_trials):
        draws = np.random.default_rng(trial)
        # a document's share of unexplained variance, and its size, are its own
        scale = draws.uniform(0.05, 0.6, 40)
        document = np.repeat(np.arange(40), draws.integers(5, 30, 40))
        x = draws.standard_normal((len(document), 4))
        rows = torch.from_numpy(np.concatenate([x, scale[document][:, None] * x], 1).astype(np.float32))
        ids = torch.from_numpy(document)
        yes = torch.ones(len(ids), dtype=torch.bool)
        found = measure_pairings(sae, Rows({MLP: rows}, ids, ids, yes, ~yes), [MLP])[MLP]
        # errors are the second half: E scale^2 of E (1 + scale^2)
        square = (0.6**3 - 0.05**3) / 3 / 0.55
        covered += found.fvu.low <= square / (1 + square) <= found.fvu.high
    assert 0.88 <= covered / n_trials <= 0.99


class HalfSae:
    """Reconstructs the first half of a row, and nothing of the second."""

    module = torch.nn.Linear(1, 1)
    source, hook_name, model_name, d_model, n_features = "half", None, None, 8, 4

    def reconstruct(self, rows):
        return rows[:, :4], torch.cat([rows[:, :4], torch.zeros_like(rows[:, 4:])], 1)


def test_a_gemma_with_post_norms(tmp_path):
    """Gemma Scope's MLP SAEs read what is added to the stream, after the post-norm: mlp_out, not the MLP's output."""
    module = tiny_model("gemma2", intermediate_size=5)
    gains = module.model.layers[1].post_feedforward_layernorm.weight
    gains.data = torch.randn(gains.shape, generator=torch.Generator().manual_seed(1))
    model = wrap_model(module, model_config())
    ids = torch.randint(3, N_VOCAB, (20, 16), generator=torch.Generator().manual_seed(0))
    layer = module.model.layers[1]
    raw = []
    handle = layer.mlp.register_forward_hook(lambda _module, _inputs, output: raw.append(output.detach()))
    points = [HookPoint(hook, index) for hook in ("mlp_out", "attn_out", "resid_post") for index in range(3)]
    states = capture(model, ids, torch.ones_like(ids), points)
    handle.remove()
    # what five neurons write spans five directions: an SAE of these and their negatives
    added = states[HookPoint("mlp_out", 1)].reshape(-1, D_MODEL).double().numpy()
    basis = np.linalg.svd(added, full_matrices=False)[2][:5]
    weights = gemma_scope_weights()
    weights["W_dec"] = np.concatenate([basis, -basis]).astype(np.float32)
    weights["W_enc"] = weights["W_dec"].T.copy()
    weights |= {"b_enc": np.zeros(10, np.float32), "b_dec": np.zeros(D_MODEL, np.float32)}
    weights["threshold"] = np.full(10, 1e-3, np.float32)
    folder = tmp_path / "gemma-scope-2b-pt-mlp" / "layer_1"
    write_gemma_scope(folder, weights)
    sae = load_sae(sae_config(path=str(folder)))
    rows = {point: state.reshape(-1, D_MODEL).numpy() for point, state in states.items()}
    store = make_store(tmp_path / "store", rows, [16] * 20)
    good = check_pairing(sae, store)
    assert good.point == HookPoint("mlp_out", 1)
    assert good.fvu.value < 1e-3
    for wrong in (HookPoint("resid_post", 1), HookPoint("attn_out", 1), HookPoint("mlp_out", 2)):
        with pytest.raises(StrataError, match=r"It fits mlp_out\.1 \(FVU .*\) best: use it there"):
            check_pairing(sae, store, wrong, max_fvu=0.1)
    before_norm = make_store(
        tmp_path / "raw", {HookPoint("mlp_out", 1): raw[-1].reshape(-1, D_MODEL).numpy()}, [16] * 20
    )
    with pytest.raises(StrataError, match="does not fit"):
        check_pairing(sae, before_norm, max_fvu=0.1)
