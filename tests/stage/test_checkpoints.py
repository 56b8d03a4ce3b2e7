"""Checkpoints of SAEs in training: the last whole one counts, and one process at a time writes them."""

import multiprocessing

import pytest
import torch

from src.artifacts import Plan
from src.errors import StrataError
from src.features.training.trainer import SaeTraining, TrainingSettings
from src.hook_points import HookPoint
from src.stage.checkpoints import Checkpoints

POINT = HookPoint("resid_post", 0)
SETTINGS = TrainingSettings(
    architecture="batchtopk",
    d_sae=8,
    keys={"k": 2},
    tokens=80,
    batch_size=4,
    lr=0.01,
    warm_up=0,
    decay=0,
    normalize_activations="none",
    b_dec_init="zeros",
    dead_feature_window=5,
    dtype="float32",
    seed=0,
    metadata={},
)


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(Plan(tmp_path, "sae", "x", {"lr": 1}), "these SAEs")
    made.folder.mkdir(parents=True)
    return made


def new() -> SaeTraining:
    return SaeTraining((POINT,), 4, SETTINGS, torch.device("cpu"))


def advanced(training: SaeTraining, steps: int) -> SaeTraining:
    draws = torch.Generator().manual_seed(0)
    for _ in range(steps):
        training.train({POINT: torch.randn(4, 4, generator=draws)})
    return training


def begun() -> SaeTraining:
    training = new()
    training.begin(iter([{POINT: torch.ones(4, 4)}] * 20))
    return training


def test_the_last_one_is_kept_and_loaded_with_its_curve(checkpoints):
    training = begun()
    for step in (3, 6):
        checkpoints.save(advanced(training, 3), [{"tokens": 4 * step, "fvu": None}])
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000000000006"]
    resumed = new()
    assert checkpoints.load(resumed) == [{"tokens": 24, "fvu": None}]
    assert resumed.step == 6
    rows = torch.randn(9, 4)
    assert torch.equal(resumed.inference_sae(POINT).encode(rows), training.inference_sae(POINT).encode(rows))


@pytest.mark.parametrize("name", ["trainer_state.pt", "weights.safetensors", "checkpoint.json"])
def test_what_is_damaged_does_not_count(checkpoints, name):
    checkpoints.save(advanced(begun(), 2), [])
    (path,) = checkpoints.folder.rglob(name)
    path.write_bytes(path.read_bytes()[:-20])
    resumed = new()
    assert checkpoints.load(resumed) is None
    assert resumed.step == 0


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(checkpoints, monkeypatch):
    training = begun()
    checkpoints.save(advanced(training, 2), [])

    def full(*_args, **_keys):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("src.features.training.trainer.save_tensors", full)
    with pytest.raises(StrataError, match=r"the disk that holds .* is full: free space there"):
        checkpoints.save(advanced(training, 2), [])
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000000000002"]


def _try(folder, answers):
    try:
        with Checkpoints(Plan(folder, "sae", "x", {"lr": 1}), "these SAEs").held():
            answers.put("held")
    except StrataError as error:
        answers.put(str(error))


def test_two_processes_do_not_train_the_same(checkpoints, tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with checkpoints.held():
        process = context.Process(target=_try, args=(tmp_path, answers))
        process.start()
        assert answers.get(timeout=30).startswith("another process trains these SAEs now")
        process.join()
