"""Modulators on disk: back to the bit, and nothing that is not one is taken for one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from src.errors import StrataError
from src.models import LanguageModel
from src.modulators.saving import HEADER, KINDS, TENSORS, load_modulator, save_modulator
from tests.fixtures.tiny_models import ragged_batch
from tests.fixtures.tiny_modulators import modulators, residual_modulator, wrapped


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return wrapped("llama")


@pytest.fixture
def folder(model: LanguageModel, tmp_path: Path) -> Path:
    save_modulator(tmp_path, residual_modulator(model, unknown=[3]))
    return tmp_path


def changed_header(folder: Path, **values: Any) -> None:
    path = folder / HEADER
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def changed_settings(folder: Path, **values: Any) -> None:
    settings = json.loads((folder / HEADER).read_text())["settings"]
    changed_header(folder, settings=settings | values)


@torch.no_grad()
def test_a_modulator_comes_back_to_the_bit(model: LanguageModel, tmp_path: Path):
    ids, mask = ragged_batch([6, 4])
    for name, modulator in modulators(model).items():
        (tmp_path / name).mkdir()
        save_modulator(tmp_path / name, modulator)
        loaded = load_modulator(tmp_path / name)
        assert type(loaded) is type(modulator)
        assert loaded.settings() == modulator.settings()
        state = modulator.state_dict()
        assert list(loaded.state_dict()) == list(state)
        assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
        trained = [(key, parameter.requires_grad) for key, parameter in modulator.named_parameters()]
        assert [(key, parameter.requires_grad) for key, parameter in loaded.named_parameters()] == trained
        with modulator.attached(model):
            expected = model.module(input_ids=ids, attention_mask=mask).logits
        with loaded.attached(model):
            assert torch.equal(model.module(input_ids=ids, attention_mask=mask).logits, expected)


def test_no_code_is_read_from_files(folder: Path):
    assert {path.name for path in folder.iterdir()} == {TENSORS, HEADER}
    header = json.loads((folder / HEADER).read_text())
    assert header["class"] in KINDS
    # safetensors: 8 bytes of length, then JSON
    content = (folder / TENSORS).read_bytes()
    assert "table" in json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
@pytest.mark.parametrize("name", [TENSORS, HEADER])
def test_truncated_files_are_refused(folder: Path, name: str, kept: int):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: kept if kept >= 0 else len(content) - 3])
    with pytest.raises(StrataError, match=r"can't be read.*train it again"):
        load_modulator(folder)


@pytest.mark.parametrize("name", [TENSORS, HEADER])
def test_missing_and_foreign_files_are_refused(folder: Path, name: str):
    (folder / name).write_bytes(b"\x80\x04\x95pickle")
    with pytest.raises(StrataError, match=r"can't be read.*train it again"):
        load_modulator(folder)
    (folder / name).unlink()
    with pytest.raises(StrataError, match=r"can't be read.*train it again"):
        load_modulator(folder)


@pytest.mark.parametrize("name", ["../../residual", "os.system", "Residual", "", None, ["residual"], {"residual": 1}])
def test_a_class_is_one_of_ours(folder: Path, name: Any):
    """A name from a file leads nowhere: neither to a path nor to a module."""
    changed_header(folder, **{"class": name})
    with pytest.raises(StrataError, match=r"unknown class.*train it again"):
        load_modulator(folder)


@pytest.mark.parametrize("values", [{"kind": "sae"}, {"version": 2}])
def test_another_format_is_refused(folder: Path, values: dict[str, Any]):
    changed_header(folder, **values)
    with pytest.raises(StrataError, match="holds no modulator of version 1"):
        load_modulator(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"d_vocab": 5},
        {"d_vocab": -5},
        {"d_vocab": "../x"},
        {"d_vocab": 2**80},
        {"width": 1},
        {"layers": [0, 1]},
        {"layers": 3},
        {"layers": None},
        {"per_layer": False},
    ],
)
def test_settings_that_do_not_fit_the_tensors_are_refused(folder: Path, settings: dict[str, Any]):
    changed_settings(folder, **settings)
    with pytest.raises(StrataError, match=r"do not fit each other.*train it again"):
        load_modulator(folder)


@pytest.mark.parametrize("settings", [None, [], {}, "residual", {"d_model": 16}])
def test_settings_that_are_none_are_refused(folder: Path, settings: Any):
    changed_header(folder, settings=settings)
    with pytest.raises(StrataError, match=r"do not fit each other.*train it again"):
        load_modulator(folder)


def test_layers_that_no_model_has_are_refused(folder: Path, model: LanguageModel):
    changed_settings(folder, layers=[0, 1, 7])
    modulator = load_modulator(folder)
    with pytest.raises(StrataError, match=r"layers 0\.\.2"), modulator.attached(model):
        pass


@pytest.mark.parametrize("fault", ["extra", "missing", "dtype", "nan", "infinite"])
def test_tensors_that_do_not_fit_are_refused(folder: Path, fault: str):
    tensors = load_file(folder / TENSORS)
    if fault == "extra":
        tensors["more"] = torch.zeros(1)
    elif fault == "missing":
        del tensors["known"]
    elif fault == "dtype":
        tensors["projection"] = tensors["projection"].half()
    else:
        tensors["table"][4, 2] = torch.nan if fault == "nan" else -torch.inf
    save_file(tensors, folder / TENSORS)
    message = "table holds NaN or infinity" if fault in ("nan", "infinite") else "do not fit each other"
    with pytest.raises(StrataError, match=message):
        load_modulator(folder)
