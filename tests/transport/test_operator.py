import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.operator import TransportOperator

SOURCE, TARGET = HookPoint("resid_post", 1), HookPoint("resid_post", 3)


@pytest.fixture
def operator() -> TransportOperator:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    bias = torch.randn(6, generator=generator, dtype=torch.float64)
    return TransportOperator(weight, bias, SOURCE, TARGET, "ridge", 10.0, {"n_rows": 7, "folds": [0, 1]})


def test_applies_to_the_last_axis_and_keeps_the_dtype(operator):
    x = np.random.default_rng(0).standard_normal((2, 5, 4))
    truth = np.einsum("abi,ij->abj", x, operator.weight.numpy()) + operator.bias.numpy()
    np.testing.assert_allclose(operator.predict(x), truth, rtol=1e-12)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 5e-2)):
        for held in (torch.float64, torch.float32, torch.bfloat16):
            y = operator.to(dtype=held)(torch.from_numpy(x).to(dtype))
            assert y.dtype == dtype
            np.testing.assert_allclose(y.double(), truth, atol=max(tolerance, {torch.bfloat16: 0.1}.get(held, 1e-5)))
    assert operator.predict(x.astype(np.float32)).dtype == np.float32
    assert operator(torch.zeros(0, 4)).shape == (0, 6)


def test_moves_between_devices_and_dtypes(operator):
    moved = operator.to("cpu", torch.float16)
    assert (moved.weight.dtype, moved.bias.dtype) == (torch.float16, torch.float16)
    assert (moved.source, moved.target, moved.alpha, moved.metadata) == (SOURCE, TARGET, 10.0, operator.metadata)
    assert operator.weight.dtype == torch.float64


def test_gradients_flow_to_the_input(operator):
    x = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    operator(x)[:, 0].sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, operator.weight[:, 0].expand(3, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_saved_operators_come_back_exactly(operator, tmp_path, dtype):
    operator = operator.to(dtype=dtype)
    operator.save(tmp_path)
    loaded = TransportOperator.load(tmp_path)
    assert torch.equal(loaded.weight, operator.weight)
    assert torch.equal(loaded.bias, operator.bias)
    for name in ("source", "target", "method", "alpha", "metadata"):
        assert getattr(loaded, name) == getattr(operator, name)


def test_damaged_or_foreign_files_are_refused(operator, tmp_path):
    with pytest.raises(StrataError, match="can't be read"):
        TransportOperator.load(tmp_path)
    operator.save(tmp_path)
    file = tmp_path / "operator.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-9])
    with pytest.raises(StrataError, match="can't be read"):
        TransportOperator.load(tmp_path)
    save_file({"weight": operator.weight}, file)
    with pytest.raises(StrataError, match="can't be read"):
        TransportOperator.load(tmp_path)
    save_file({"weight": operator.weight.T.contiguous(), "bias": operator.bias[:4].clone()}, file)
    with pytest.raises(StrataError, match="does not belong"):
        TransportOperator.load(tmp_path)
    save_file({"weight": operator.weight * float("nan"), "bias": operator.bias}, file)
    with pytest.raises(StrataError, match="NaN or inf"):
        TransportOperator.load(tmp_path)
    file.write_bytes(data)
    header = json.loads((tmp_path / "operator.json").read_text())
    for changed in (header | {"kind": "sae"}, header | {"version": 2}):
        (tmp_path / "operator.json").write_text(json.dumps(changed))
        with pytest.raises(StrataError, match="holds no transport operator of version 1"):
            TransportOperator.load(tmp_path)
    for changed in ([], {key: value for key, value in header.items() if key != "method"}):
        (tmp_path / "operator.json").write_text(json.dumps(changed))
        with pytest.raises(StrataError, match=r"holds no transport operator|is damaged"):
            TransportOperator.load(tmp_path)


def test_unfit_tensors_are_refused(operator):
    with pytest.raises(StrataError, match="takes width 4, got 6"):
        operator(torch.zeros(2, 6))
    with pytest.raises(StrataError, match=r"\[d_in, d_out\] and \[d_out\]"):
        TransportOperator(operator.weight, operator.bias[:2], SOURCE, TARGET, "ridge")
    with pytest.raises(StrataError, match="NaN or inf"):
        TransportOperator(operator.weight, operator.bias / 0, SOURCE, TARGET, "ridge")
