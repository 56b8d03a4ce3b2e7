import numpy as np
import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from src.geometry.circuits.distance_bias import (
    bucket_bias,
    deltas,
    linear_bias,
    position_kernel,
    relative_buckets,
    rotary_bias,
)
from src.geometry.circuits.distance_heads import distance_heads, uniform_head
from src.geometry.circuits.notebook import bucket_heads
from src.models.checkpoint.rotary import Rotary


def span(bucket: int, bidirectional: bool) -> tuple[int, int] | None:
    """Least and greatest delta of a bucket within 300 tokens."""
    delta = torch.arange(-300, 301 if bidirectional else 1)
    inside = delta[relative_buckets(delta, 32, 128, bidirectional) == bucket]
    return (int(inside.min()), int(inside.max())) if len(inside) else None


def test_buckets_of_encoders_are_those_of_the_specification():
    """Spec E8: 0 is the token itself, 1..7 exact, and 16 is never used."""
    spans = {bucket: span(bucket, bidirectional=True) for bucket in range(32)}
    assert spans[16] is None
    assert [spans[bucket] for bucket in range(8)] == [(-bucket, -bucket) for bucket in range(8)]
    assert (spans[13], spans[14], spans[15]) == ((-63, -46), (-90, -64), (-300, -91))
    assert (spans[17], spans[18]) == ((1, 1), (2, 2))
    assert (spans[29], spans[30], spans[31]) == ((46, 63), (64, 90), (91, 300))


def test_buckets_of_decoders_are_those_of_the_specification():
    spans = {bucket: span(bucket, bidirectional=False) for bucket in range(32)}
    assert [spans[bucket] for bucket in range(16)] == [(-bucket, -bucket) for bucket in range(16)]
    assert spans[16] == (-18, -16)
    assert spans[31] == (-300, -113)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (32, 256), (64, 100), (8, 20)])
def test_buckets_are_those_of_transformers(bidirectional, n_buckets, max_distance):
    delta = torch.arange(-500, 501)
    expected = T5Attention._relative_position_bucket(delta, bidirectional, n_buckets, max_distance)
    assert torch.equal(relative_buckets(delta, n_buckets, max_distance, bidirectional), expected)


def test_the_bucket_that_no_distance_has_changes_nothing():
    """BUG E-9: the notebook lets an untrained value of bucket 16 win the peak."""
    table = torch.linspace(0, 1, 32)[:, None].clone()
    table[17] = 8.0  # the next token
    delta = deltas(bidirectional=True)
    before = distance_heads(bucket_bias(table, delta, 128, bidirectional=True), delta)
    table[16] = 100.0
    after = distance_heads(bucket_bias(table, delta, 128, bidirectional=True), delta)
    assert before == after
    assert before[0].peak == 1
    assert bucket_heads(table)[0]["peak_bucket"] == 16


def test_synthetic_heads_get_their_kinds():
    """Spec K. The notebook calls the far past mixed, and the next token too."""
    table = torch.zeros(32, 4)
    table[0, 0] = 12.0  # the token itself
    table[13:16, 1] = 6.0  # 46 and more tokens back
    table[17, 2] = 12.0  # one token ahead
    table[29:32, 3] = 6.0  # 46 and more tokens ahead
    delta = deltas(bidirectional=True)
    found = distance_heads(bucket_bias(table, delta, 128, bidirectional=True), delta)
    assert [head.kind for head in found] == ["local", "global past", "directional future", "global future"]
    assert [head["kind"] for head in bucket_heads(table)] == ["local", "mixed", "mixed", "global"]
    assert found[2].future > 0.99
    assert found[1].far > 0.9


def test_causal_heads_have_one_side_only():
    table = torch.zeros(32, 3)
    table[1, 0] = 12.0
    table[25:, 1] = 6.0
    table[8:12, 2] = 6.0
    delta = deltas(bidirectional=False)
    found = distance_heads(bucket_bias(table, delta, 128, bidirectional=False), delta)
    assert [head.kind for head in found] == ["local", "global", "mixed"]


def test_a_head_without_bias_is_flat_though_most_distances_are_far():
    delta = deltas(bidirectional=True)
    flat = distance_heads(torch.zeros(1, len(delta)), delta)[0]
    assert flat.kind == "flat"
    assert flat.far > 0.5
    null = uniform_head(delta)
    assert (null.near, null.far) == (pytest.approx(5 / 257), pytest.approx(166 / 257))
    assert np.isnan(null.decay)


def test_a_symmetric_window_is_local_and_decays():
    delta = deltas(bidirectional=True)
    head = distance_heads(-2.0 * delta.abs()[None].double(), delta)[0]
    assert head.kind == "local"
    assert head.decay == pytest.approx(1)
    assert head.past == pytest.approx(head.future)


def test_alibi_is_what_transformers_adds_up_to_a_constant_for_each_query():
    n_heads = 6  # not a power of two
    whole = build_alibi_tensor(torch.ones(1, 129, dtype=torch.long), n_heads, torch.float32)[:, 0]
    slopes = whole[:, 1] - whole[:, 0]
    found = linear_bias(slopes, deltas(bidirectional=False))
    expected = (whole - whole[:, -1:]).double()  # of the last of 129 tokens
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_kernel_of_biases_under_rotary_positions():
    """Two pairs of dimensions by hand: |b|^2 cos(frequency * delta) summed over pairs for equal biases."""
    rotary = Rotary(torch.tensor([1.0, 0.1]).double(), torch.tensor([0, 1]), torch.tensor([2, 3]))
    bias = torch.tensor([[3.0, 1.0, 4.0, 2.0]])
    delta = torch.arange(-5, 1)
    found = rotary_bias(bias, bias, rotary, 0.5, delta)
    expected = 0.5 * (25 * torch.cos(delta.double()) + 5 * torch.cos(0.1 * delta.double()))
    torch.testing.assert_close(found[0], expected)


def test_kernel_of_learned_positions_is_the_mean_over_diagonals():
    draws = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 20, 3, generator=draws, dtype=torch.float64) for _ in range(2))
    delta = torch.arange(-22, 23)
    found = position_kernel(q, k, 0.5, delta)
    products = (0.5 * q @ k.mT).numpy()
    for place, each in enumerate(delta.tolist()):
        for head in range(2):
            if abs(each) >= 20:
                assert bool(found[head, place].isnan())
            else:
                expected = np.diagonal(products[head], each).mean()
                assert float(found[head, place]) == pytest.approx(expected, abs=1e-12)
