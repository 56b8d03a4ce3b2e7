import pytest
import torch

from src.devices import resolve_device
from src.errors import StrataError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    assert resolve_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "gpu"):
        with pytest.raises(StrataError, match=rf"device={name} is not available here: choose one of auto, cpu$"):
            resolve_device(name)


@pytest.mark.usefixtures("two_gpus")
def test_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(StrataError, match=r"device=cuda:2 .*auto, cpu, cuda, cuda:0, cuda:1$"):
        resolve_device("cuda:2")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_processes_of_torchrun_get_an_accelerator_each(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    own = torch.device("cuda", rank % 2)  # more processes than accelerators share them
    names = ("auto", "cuda", "cuda:0", "cpu")
    assert [resolve_device(name) for name in names] == [own, own, torch.device("cuda:0"), torch.device("cpu")]
