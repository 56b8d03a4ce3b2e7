import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.activations.moments import Moments
from src.activations.products import add_product, arithmetic_device, default_precision, exact_products
from src.artifacts.tensors import load_tensors
from src.errors import StrataError
from src.hook_points import HookPoint

A, B = HookPoint("resid_post", 0), HookPoint("resid_post", 3)
PAIRS = [(A, A), (A, B)]


def outlier_rows(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[HookPoint, torch.Tensor]:
    """Two hook points like residual streams: dimension 1 has mean 2000 and scale 300."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x[:, 1] = 300 * x[:, 1] + 2000
    y = x + 0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return {A: x.to(dtype), B: y.to(dtype)}


def moments_of(rows, group, n_groups=3, **options) -> Moments:
    moments = Moments.empty(PAIRS, {h: x.shape[1] for h, x in rows.items()}, n_groups, **options)
    moments.update(rows, group)
    return moments


def two_pass(rows, chosen, about=None):
    """Means, scatter matrix of A with B and squared deviations of B by the textbook's two passes in float64."""
    x, y = (rows[h].double()[chosen].numpy() for h in (A, B))
    about = chosen if about is None else about
    mean_x, mean_y = (rows[h].double()[about].numpy().mean(0) for h in (A, B))
    return mean_x, (x - mean_x).T @ (x - mean_x), (x - mean_x).T @ (y - mean_y), ((y - mean_y) ** 2).sum(0)


def relative_error(got: torch.Tensor, expected: np.ndarray, scale: np.ndarray) -> float:
    return float(np.max(np.abs(got.numpy() - expected) / scale))


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
# 500 columns make the symmetric product go by strips; 9000 rows make several blocks
@pytest.mark.parametrize(("n", "d"), [(9000, 7), (700, 500)])
def test_statistics_equal_two_passes_with_an_outlier_dimension(n, d, precision, tolerance):
    rows = outlier_rows(n, d)
    group = torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(1))
    moments = moments_of(rows, group, precision=precision)
    assert moments.count.tolist() == group.bincount().tolist()
    train, held_out = moments.subset([0, 2]), moments.subset([1])
    in_train = (group != 1).numpy()
    mean, sxx, sxy, syy = two_pass(rows, in_train)
    spread = np.sqrt(np.diag(sxx))
    across = np.outer(spread, np.sqrt(syy))
    assert train.n == in_train.sum()
    np.testing.assert_allclose(train.mean(A), mean, rtol=tolerance, atol=tolerance)
    assert relative_error(train.scatter(A, A), sxx, np.outer(spread, spread)) < tolerance
    assert relative_error(train.scatter(A, B), sxy, across) < tolerance
    assert relative_error(train.square_scatter(B), syy, syy) < tolerance
    _, hxx, hxy, hyy = two_pass(rows, ~in_train, about=in_train)
    assert relative_error(held_out.scatter(A, A, about=train), hxx, np.outer(spread, spread)) < tolerance
    assert relative_error(held_out.scatter(A, B, about=train), hxy, across) < tolerance
    assert relative_error(held_out.square_scatter(B, about=train), hyy, syy) < tolerance


def test_difference_is_the_rest():
    rows = outlier_rows(600, 6)
    group = torch.arange(600) % 3
    moments = moments_of(rows, group)
    rest, direct = moments.subset([0, 1, 2]) - moments.subset([1]), moments.subset([0, 2])
    assert rest.n == direct.n == 400
    torch.testing.assert_close(rest.scatter(A, B), direct.scatter(A, B), rtol=1e-12, atol=1e-8)
    torch.testing.assert_close(rest.mean(B), direct.mean(B), rtol=1e-13, atol=0)
    torch.testing.assert_close(rest.square_scatter(B), direct.square_scatter(B), rtol=1e-12, atol=0)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_parts_add_up_however_they_are_split_shuffled_shifted_and_merged(data):
    n = data.draw(st.integers(4, 60))
    rows = outlier_rows(n, 4, seed=n)
    group = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    order = torch.tensor(data.draw(st.permutations(range(n))))
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=3)))
    shifts = data.draw(st.lists(st.floats(-3000, 3000, width=32), min_size=len(cuts) + 1, max_size=len(cuts) + 1))
    whole = moments_of(rows, group)
    merged = Moments.empty(PAIRS, {A: 4, B: 4}, 3)
    for part, shift in zip(torch.tensor_split(order, cuts), shifts, strict=True):
        given_shift = {A: torch.full((4,), shift), B: torch.full((4,), -shift)}
        merged = merged + moments_of({h: x[part] for h, x in rows.items()}, group[part], shift=given_shift)
    assert torch.equal(merged.count, whole.count)
    for chosen in {tuple(group.unique().tolist()), (int(group[0]),)}:
        ours, truth = merged.subset(chosen), whole.subset(chosen)
        torch.testing.assert_close(ours.mean(A), truth.mean(A), rtol=1e-10, atol=1e-9)
        torch.testing.assert_close(ours.scatter(A, B), truth.scatter(A, B), rtol=1e-7, atol=1e-4)
        torch.testing.assert_close(ours.square_scatter(B), truth.square_scatter(B), rtol=1e-7, atol=1e-4)


def test_merge_leaves_the_other_alone_and_plus_leaves_both():
    rows, group = outlier_rows(40, 3), torch.zeros(40, dtype=torch.int64)
    first, second = moments_of(rows, group), moments_of(rows, group)
    both = first + second
    assert first.count.tolist() == second.count.tolist() == [40, 0, 0]
    assert both.count.tolist() == [80, 0, 0]
    first.merge(second)
    assert first.count.tolist() == [80, 0, 0]
    assert second.count.tolist() == [40, 0, 0]
    assert torch.equal(first.products[A, B], both.products[A, B])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_rows_of_any_float_dtype(dtype, precision):
    rows = outlier_rows(200, 4, dtype=dtype)
    group = torch.zeros(200, dtype=torch.int64)
    got = moments_of(rows, group, n_groups=1, precision=precision).subset([0])
    _, _, sxy, syy = two_pass(rows, np.ones(200, dtype=bool))
    assert relative_error(got.scatter(A, B), sxy, np.sqrt(np.outer(syy, syy))) < 1e-6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_rows_name_the_hook_point_and_add_nothing(bad):
    rows, group = outlier_rows(50, 3), torch.zeros(50, dtype=torch.int64)
    moments = moments_of(rows, group)
    before = moments.products[A, B].clone()
    rows[B] = rows[B].clone()
    rows[B][7, 2] = bad
    with pytest.raises(StrataError, match=r"resid_post\.3: 1 of 50 rows hold NaN or inf"):
        moments.update(rows, group)
    assert torch.equal(moments.products[A, B], before)
    assert moments.count.tolist() == [50, 0, 0]


def test_bad_input_is_refused():
    rows, group = outlier_rows(10, 3), torch.zeros(10, dtype=torch.int64)
    moments = moments_of(rows, group)
    with pytest.raises(StrataError, match=r"groups must lie in 0\.\.2"):
        moments.update(rows, group + 3)
    with pytest.raises(StrataError, match=r"groups must lie in 0\.\.2"):
        moments.update(rows, group - 1)
    with pytest.raises(StrataError, match=r"resid_post\.3: expected 10 rows of width 3"):
        moments.update({A: rows[A]}, group)
    with pytest.raises(StrataError, match=r"resid_post\.0: expected 10 rows of width 3"):
        moments.update({A: rows[A][:5], B: rows[B]}, group)
    with pytest.raises(StrataError, match="hold no rows"):
        moments.subset([1, 2])
    with pytest.raises(StrataError, match=r"groups 0\.\.2, not \[3\]"):
        moments.subset([3])
    with pytest.raises(StrataError, match="were not accumulated"):
        moments.subset([0]).scatter(B, B)
    with pytest.raises(StrataError, match="cannot be merged"):
        moments.merge(Moments.empty([(A, A)], {A: 3}, 3))
    with pytest.raises(StrataError, match="cannot be merged"):
        moments.merge(Moments.empty(PAIRS, {A: 3, B: 3}, 2))
    with pytest.raises(StrataError, match=r"shift of resid_post\.0"):
        Moments.empty(PAIRS, {A: 3, B: 3}, 2, shift={A: torch.zeros(2), B: torch.zeros(3)})
    with pytest.raises(StrataError, match=r"width of resid_post\.3"):
        Moments.empty(PAIRS, {A: 3}, 2)


def test_no_rows_change_nothing():
    moments = Moments.empty(PAIRS, {A: 3, B: 3}, 2)
    moments.update({A: torch.zeros(0, 3), B: torch.zeros(0, 3)}, torch.zeros(0, dtype=torch.int64))
    assert moments.count.tolist() == [0, 0]
    assert not moments.shift


def test_saved_moments_come_back_exactly_and_go_on(tmp_path):
    rows, group = outlier_rows(30, 3), torch.arange(30) % 3
    moments = moments_of(rows, group, precision="float32")
    moments.save(tmp_path)
    loaded = Moments.load(tmp_path)
    assert (loaded.pairs, loaded.precision, loaded.hook_points) == (moments.pairs, "float32", (A, B))
    for moment in (moments, loaded):
        moment.update(rows, group)
    for key in PAIRS:
        assert torch.equal(loaded.products[key], moments.products[key])
    for h in (A, B):
        assert torch.equal(loaded.sums[h], moments.sums[h])
        assert torch.equal(loaded.square_sums[h], moments.square_sums[h])


def test_wanted_pairs_alone_are_read(tmp_path, monkeypatch):
    rows, group = outlier_rows(30, 3), torch.arange(30) % 3
    moments = moments_of(rows, group)
    moments.save(tmp_path)
    read = []

    def reading(path, remedy, names, device):
        read.extend(names)
        return load_tensors(path, remedy, names, device)

    monkeypatch.setattr("src.activations.moments.load_tensors", reading)
    loaded = Moments.load(tmp_path, pairs=[(A, A)])
    assert [name for name in read if name.startswith("product")] == ["product/resid_post.0/resid_post.0"]
    assert not any("resid_post.3" in name for name in read)
    assert (loaded.pairs, loaded.hook_points) == (((A, A),), (A,))
    assert torch.equal(loaded.subset([1]).scatter(A, A), moments.subset([1]).scatter(A, A))
    with pytest.raises(StrataError, match=r"no products of resid_post\.3 and resid_post\.3"):
        Moments.load(tmp_path, pairs=[(B, B)])


def test_moments_without_rows_come_back_too(tmp_path):
    Moments.empty(PAIRS, {A: 3, B: 3}, 2).save(tmp_path)
    loaded = Moments.load(tmp_path)
    assert (loaded.count.tolist(), loaded.shift) == ([0, 0], {})


def test_damaged_or_foreign_files_are_refused(tmp_path):
    with pytest.raises(StrataError, match=r"moments.json can't be read.*overwrite=true"):
        Moments.load(tmp_path)
    moments_of(outlier_rows(30, 3), torch.zeros(30, dtype=torch.int64)).save(tmp_path)
    file = tmp_path / "moments.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(StrataError, match=r"moments.safetensors can't be read.*overwrite=true"):
        Moments.load(tmp_path)
    file.write_bytes(data)
    header = json.loads((tmp_path / "moments.json").read_text())
    for changed, complaint in (
        (header | {"version": 99}, "holds no moments of version 1"),
        (header | {"pairs": [["resid_post.9", "resid_post.9"]]}, "moments.safetensors can't be read"),
        (header | {"pairs": 7}, "moments.json is damaged"),
        ({key: header[key] for key in header if key != "precision"}, "moments.json is damaged"),
    ):
        (tmp_path / "moments.json").write_text(json.dumps(changed))
        with pytest.raises(StrataError, match=complaint):
            Moments.load(tmp_path)


def test_products_ignore_autocast_and_restore_the_precision_flags():
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    rows, group = outlier_rows(300, 8), torch.zeros(300, dtype=torch.int64)
    plain = moments_of(rows, group, precision="float32")
    try:
        for backend in backends:
            backend.fp32_precision = "tf32"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = moments_of(rows, group, precision="float32")
            with exact_products():
                assert [backend.fp32_precision for backend in backends] == ["ieee", "ieee"]
        assert [backend.fp32_precision for backend in backends] == ["tf32", "tf32"]
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
    assert torch.equal(cast.products[A, B], plain.products[A, B])


@pytest.mark.parametrize("d", [1, 191, 193, 500])
def test_symmetric_product_adds_the_whole_matrix(d):
    x = torch.randn(20, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    total = torch.ones(d, d, dtype=torch.float64)
    add_product(total, x, x)
    torch.testing.assert_close(total, x.T @ x + 1, rtol=1e-12, atol=1e-12)


def test_mps_has_no_float64_so_the_cpu_stands_in(tmp_path):
    assert [arithmetic_device(name).type for name in ("mps", "cpu", "cuda:1")] == ["cpu", "cpu", "cuda"]
    moments_of(outlier_rows(30, 3), torch.zeros(30, dtype=torch.int64)).save(tmp_path)
    assert Moments.load(tmp_path, "mps").device.type == "cpu"
    assert default_precision("cpu") == default_precision("mps") == "float64"
    assert Moments.empty([(A, A)], {A: 2}, 1, device="mps").device.type == "cpu"


def test_merged_groups_are_the_moments_of_their_rows():
    rows = outlier_rows(300, 6)
    group = torch.randint(0, 5, (300,), generator=torch.Generator().manual_seed(2))
    moments = moments_of(rows, group, n_groups=5)
    place = torch.tensor([1, 0, 1, 1, 2])  # 0, 2 and 3 become group 1
    merged = moments.merged([[1], [3, 0, 2], [4]], PAIRS)
    expected = moments_of(rows, place[group], shift=moments.shift)
    assert merged.count.tolist() == expected.count.tolist()
    for pair in PAIRS:
        torch.testing.assert_close(merged.products[pair], expected.products[pair], rtol=1e-12, atol=1e-6)
    torch.testing.assert_close(merged.sums[B], expected.sums[B], rtol=1e-10, atol=1e-6)
    torch.testing.assert_close(merged.square_sums[B], expected.square_sums[B], rtol=1e-12, atol=0)
    alone = moments.merged([[0, 1]], [(A, A)])
    assert (alone.pairs, alone.hook_points, alone.precision) == (((A, A),), (A,), moments.precision)
    with pytest.raises(StrataError, match=r"products of resid_post\.3 and resid_post\.3 were not accumulated"):
        moments.merged([[0]], [(B, B)])
