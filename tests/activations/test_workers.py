"""Which process makes which parts, on which device, and that two runs never fill one store by accident."""

import fcntl
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.activations import job
from src.activations.workers import Worker, choose_worker
from src.artifacts import Plan
from src.errors import StrataError


@given(parts=st.lists(st.integers(0, 10**6), unique=True), count=st.integers(1, 9))
def test_every_part_has_exactly_one_worker(parts, count):
    shares = [Worker(index, count).share(parts) for index in range(count)]
    assert sorted(part for share in shares for part in share) == sorted(parts)


def test_shares_do_not_depend_on_what_is_missing():
    # workers that start at other times see other parts missing, and must not both make one
    assert Worker(1, 3).share([0, 1, 2, 4, 5, 7]) == [1, 4, 7]
    assert Worker(1, 3).share([4, 5]) == [4]


@pytest.fixture
def torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    def start(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return start


def test_the_config_wins_over_torchrun_and_one_worker_is_the_default(torchrun):
    assert choose_worker(None, None) == Worker(0, 1)
    torchrun(WORLD_SIZE="4", RANK="3")
    assert choose_worker(None, None) == Worker(3, 4)
    assert choose_worker(2, 1) == Worker(1, 2)


@pytest.mark.parametrize(
    ("configured", "environment", "message"),
    [
        ((2, 2), {}, "worker_index=2: with num_workers=2 it is 0 to 1"),
        ((None, None), {"WORLD_SIZE": "2", "RANK": "5"}, "worker_index=5: with num_workers=2 it is 0 to 1"),
        ((None, None), {"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two', not a number: unset it"),
    ],
)
def test_impossible_workers_are_refused(torchrun, configured, environment, message):
    torchrun(**environment)
    with pytest.raises(StrataError, match=message):
        choose_worker(*configured)


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path, "activations", "store", {"made": "here"})


def test_a_second_run_is_kept_out_while_a_store_is_filled(plan):
    with (
        job.filling(plan, Worker(0, 1), overwrite=False),
        pytest.raises(StrataError, match=r"another run is filling .*wait until it has ended"),
        job.filling(plan, Worker(0, 1), overwrite=True),
    ):
        pass
    assert (plan.path / "plan.json").exists()
    with job.filling(plan, Worker(0, 1), overwrite=True):  # the lock ended with the first
        pass


def test_workers_share_a_store_and_keep_a_lone_run_out(plan):
    with (
        job.filling(plan, Worker(0, 2), overwrite=False),
        job.filling(plan, Worker(1, 2), overwrite=False),
        pytest.raises(StrataError, match="another run is filling"),
        job.filling(plan, Worker(0, 1), overwrite=False),
    ):
        pass
    with job.filling(plan, Worker(0, 1), overwrite=False):
        pass


def test_workers_do_not_remove_what_the_others_made(plan):
    with (
        pytest.raises(StrataError, match=r"overwrite=true with 2 workers: .* Remove .* yourself"),
        job.filling(plan, Worker(0, 2), overwrite=True),
    ):
        pass
    assert not plan.path.exists()


def test_a_file_system_without_locks_is_no_obstacle(plan, monkeypatch):
    def unsupported(_descriptor: int, _kind: int) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with job.filling(plan, Worker(0, 1), overwrite=False):
        assert (plan.path / "plan.json").exists()
