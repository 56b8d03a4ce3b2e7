"""What interventions write, against what they promise."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.causal.interventions import (
    AlongDirections,
    CleanStates,
    Constant,
    CopySource,
    KeepClean,
    OnTokensWith,
    Resample,
    Transport,
    orthonormal_basis,
    place_of_operator,
)
from src.causal.standard import rotated_operator, standard_interventions
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.operator import TransportOperator

D = 6
SOURCE, TARGET = HookPoint("resid_post", 1), HookPoint("resid_post", 3)


def clean_states(lengths: list[int], edited: Tensor | None = None, dtype: torch.dtype = torch.float32) -> CleanStates:
    draws = torch.Generator().manual_seed(0)
    is_token = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    states = {point: torch.randn(*is_token.shape, D, generator=draws).to(dtype) for point in (SOURCE, TARGET)}
    return CleanStates(TARGET, states, is_token, is_token if edited is None else edited & is_token)


def random_operator(d_in: int = D, d_out: int = D) -> TransportOperator:
    draws = torch.Generator().manual_seed(1)
    weight = torch.randn(d_in, d_out, generator=draws, dtype=torch.float64)
    return TransportOperator(weight, torch.randn(d_out, generator=draws).double(), SOURCE, TARGET, "ridge", 1.0)


@pytest.mark.parametrize("offset", [1, -1, 2])
def test_an_operator_with_an_offset_reads_the_token_that_it_was_fitted_on(offset: int) -> None:
    edited = torch.zeros(3, 6, dtype=torch.bool)
    where = [(0, 2), (0, 3), (1, 3), (2, 2)]
    edited[tuple(zip(*where, strict=True))] = True
    clean = clean_states([6, 6, 5], edited)
    plain = random_operator()
    operator = replace(plain, target=TARGET.at(offset))
    assert Transport(operator).sources == (SOURCE.at(-offset),)
    x = clean.activations[SOURCE]
    for row, (sequence, position) in zip(Transport(operator)(clean), where, strict=True):
        expected = x[sequence, position - offset].double() @ plain.weight + plain.bias
        torch.testing.assert_close(row, expected.float())
    for row, (sequence, position) in zip(CopySource(SOURCE.at(-offset))(clean), where, strict=True):
        assert torch.equal(row, x[sequence, position - offset])


def test_what_an_operator_with_an_offset_is_compared_with_edits_the_same_tokens() -> None:
    operator = replace(random_operator(), target=TARGET.at(1))
    interventions = standard_interventions(operator, torch.zeros(D), torch.ones(D), seed=0)
    assert all(it.sources == (SOURCE.at(-1),) for it in interventions.values())
    assert place_of_operator(interventions["rotated"]) == TARGET
    clean = clean_states([4, 4], torch.tensor([[False, True, True, False]] * 2))
    for name, value in (("zero", 0.0), ("mean", 1.0)):
        assert torch.equal(interventions[name](clean), torch.full((4, D), value))
    assert torch.equal(interventions["identity"](clean), clean.activations[SOURCE][:, :2].reshape(4, D))
    inside = AlongDirections(torch.eye(D), OnTokensWith(SOURCE, Transport(operator)))
    assert inside.sources == (SOURCE.at(-1), SOURCE)
    assert place_of_operator(inside) == TARGET
    assert place_of_operator(KeepClean()) is None


def test_transport_constants_and_copies() -> None:
    edited = torch.zeros(3, 5, dtype=torch.bool)
    edited[:, [1, 4]] = True
    clean = clean_states([5, 2, 4], edited)
    where = [(0, 1), (0, 4), (1, 1), (2, 1)]  # the order in which rows are written
    operator = random_operator()
    x, y = clean.activations[SOURCE], clean.activations[TARGET]
    for row, (sequence, position) in zip(Transport(operator)(clean), where, strict=True):
        torch.testing.assert_close(row, (x[sequence, position].double() @ operator.weight + operator.bias).float())
    for row, (sequence, position) in zip(CopySource(SOURCE)(clean), where, strict=True):
        assert torch.equal(row, x[sequence, position])
    for row, (sequence, position) in zip(KeepClean()(clean), where, strict=True):
        assert torch.equal(row, y[sequence, position])
    mean = torch.arange(D) / 7
    assert torch.equal(Constant(mean)(clean), mean.expand(4, D))
    assert Transport(operator).sources == CopySource(SOURCE).sources == (SOURCE,)
    assert Constant(mean).sources == KeepClean().sources == Resample(0).sources == ()


def test_the_standard_set() -> None:
    operator = random_operator()
    source_mean, target_mean = torch.ones(D).double(), torch.full((D,), 2.0)
    clean = clean_states([4, 4])
    written = {
        name: it(clean) for name, it in standard_interventions(operator, source_mean, target_mean, seed=0).items()
    }
    assert list(written) == ["transport", "null", "rotated", "identity", "mean", "resample", "zero"]
    zeros = clean.rows(SOURCE) * 0
    torch.testing.assert_close(written["null"].float(), operator(zeros))
    assert written["zero"].abs().max() == 0
    assert written["mean"].eq(2).all()
    assert torch.equal(written["identity"], clean.rows(SOURCE))
    narrow = standard_interventions(random_operator(4), torch.ones(4), target_mean, seed=0)
    assert "identity" not in narrow


@given(st.lists(st.integers(1, 9), min_size=2, max_size=7), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_resampling_is_a_derangement_at_every_position(lengths: list[int], seed: int) -> None:
    is_token = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    # activations tell where they come from
    places = torch.stack(torch.meshgrid(torch.arange(len(lengths)), torch.arange(max(lengths)), indexing="ij"), -1)
    clean = CleanStates(TARGET, {TARGET: places.float()}, is_token, is_token)
    drawn = Resample(seed)(clean)
    assert torch.equal(drawn, Resample(seed)(clean))
    for position in range(max(lengths)):
        here = is_token.nonzero()[:, 1] == position
        takers, donors = is_token.nonzero()[here, 0].tolist(), drawn[here].int().tolist()
        assert all(taker != donor for taker, (donor, _) in zip(takers, donors, strict=True))
        if len(takers) > 1:
            assert sorted(donor for donor, _ in donors) == takers
            assert {place for _, place in donors} == {position}
        else:
            ((donor, place),) = donors
            others = [length for sequence, length in enumerate(lengths) if sequence != takers[0]]
            assert place == lengths[donor] - 1 == max(others) - 1


def test_resampling_depends_on_the_seed_and_needs_two_sequences() -> None:
    clean = clean_states([5] * 8)
    assert len({tuple(Resample(seed)(clean)[:, 0].tolist()) for seed in range(6)}) > 3
    with pytest.raises(StrataError, match="another sequence in the batch: use a batch_size of at least 2"):
        Resample(0)(clean_states([5]))


def test_a_rotated_operator_keeps_spectrum_and_mean_prediction_and_nothing_else() -> None:
    operator = random_operator(5, 8)
    mean = torch.linspace(-1, 2, 5).double()
    rotated = rotated_operator(operator, mean, seed=3)
    torch.testing.assert_close(torch.linalg.svdvals(rotated.weight), torch.linalg.svdvals(operator.weight))
    torch.testing.assert_close(rotated(mean), operator(mean))
    assert (rotated.source, rotated.target) == (SOURCE, TARGET)
    assert "rotated" in rotated.method
    assert torch.equal(rotated.weight, rotated_operator(operator, mean, seed=3).weight)
    # random directions of d dimensions have cosines of 1 / sqrt(d) or so: the mean over seeds vanishes
    products = [float((rotated_operator(operator, mean, seed).weight * operator.weight).sum()) for seed in range(200)]
    assert abs(sum(products) / 200) < 0.3 * float(operator.weight.square().sum()) / 200**0.5 * 3
    half = rotated_operator(operator.to(dtype=torch.bfloat16), mean, seed=3)
    assert half.weight.dtype == half.bias.dtype == torch.bfloat16


def test_along_directions_only_their_component_changes() -> None:
    clean = clean_states([4, 3])
    directions = torch.randn(2, D, generator=torch.Generator().manual_seed(5))
    basis = orthonormal_basis(directions)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(basis @ (basis.T @ directions.T), directions.T, atol=1e-5, rtol=0)
    inner = Transport(random_operator())
    y, new = clean.target_rows(), inner(clean)
    written = AlongDirections(basis, inner)(clean)
    torch.testing.assert_close(written @ basis, new @ basis, atol=1e-5, rtol=1e-5)
    complement = torch.eye(D) - basis @ basis.T
    torch.testing.assert_close(written @ complement, y @ complement, atol=1e-5, rtol=1e-5)
    everything = AlongDirections(orthonormal_basis(torch.eye(D)), inner)
    torch.testing.assert_close(everything(clean), new, atol=1e-5, rtol=1e-5)
    assert everything.sources == (SOURCE,)
    in_half = AlongDirections(basis, inner)(clean_states([4, 3], dtype=torch.bfloat16))
    torch.testing.assert_close(in_half, written, atol=0.1, rtol=0.05)


def test_directions_that_span_nothing_of_their_own_are_refused() -> None:
    for rows in ([[1.0, 2, 3], [2, 4, 6]], torch.randn(4, 3).tolist()):
        with pytest.raises(StrataError, match="directions are linearly dependent"):
            orthonormal_basis(torch.tensor(rows))
    for rows in ([[0.0, 0, 0]], [[1, torch.nan, 0]]):
        with pytest.raises(StrataError, match="zero, NaN or infinite"):
            orthonormal_basis(torch.tensor(rows))
