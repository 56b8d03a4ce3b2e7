import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from src.artifacts import Plan, Provenance, open_artifact, verify, write_json
from src.errors import StrataError
from src.scenarios.storage.filling import ScenarioFolder, filling
from src.scenarios.storage.status import read_status

PROVENANCE = Provenance({"seed": 1}, 1, "cpu", {"python": "3"}, None, "2026-01-01T00:00:00")
ITEMS = ["references", "prompt_0", "prompt_1"]


def plan_in(root: Path, **identity) -> Plan:
    return Plan(root, "scenario_run", "weather", {"model": "tiny", **identity})


def fill(plan: Plan, made: list[str], items=ITEMS, **options) -> None:
    with filling(plan, PROVENANCE, items, **options) as folder:
        for item in folder.unfinished:
            with folder.write_item(item) as draft:
                made.append(item)
                (draft / "numbers.txt").write_text(item * 100)
        folder.finish(lambda draft: write_json(draft.path / "report.json", {}))


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "meta.json"}


def test_items_are_sealed_in_their_places(tmp_path):
    plan, made = plan_in(tmp_path), []
    fill(plan, made)
    assert made == ITEMS
    assert not verify(plan.path)
    assert open_artifact(plan.path, "scenario_run").meta.files["prompt_1/numbers.txt"][0] == 800
    assert read_status(plan.path).state == "finished"
    assert set(read_status(plan.path).items.values()) == {"done"}


def test_what_is_there_whole_is_not_made_again(tmp_path):
    plan, made = plan_in(tmp_path), []
    fill(plan, [])
    whole = contents(plan.path)
    fill(plan, made)
    assert made == []
    (plan.path / "prompt_0" / "numbers.txt").write_text("x" * 800)
    (plan.path / "prompt_1" / "item.json").write_text('{"files":')
    (plan.path / "references" / "numbers.txt").unlink()
    fill(plan, made)
    assert made == ITEMS
    assert contents(plan.path) == whole
    fill(plan, made, overwrite=True)
    assert made == [*ITEMS, *ITEMS]


def test_an_item_of_another_capture_is_made_again(tmp_path):
    fill(plan_in(tmp_path, other=1), [])
    plan, made = plan_in(tmp_path), []
    fill(plan_in(tmp_path, other=1), [])
    plan.path.mkdir(parents=True)
    (plan_in(tmp_path, other=1).path / "references").rename(plan.path / "references")
    (plan.path / "plan.json").write_text((plan_in(tmp_path, other=1).path / "plan.json").read_text())
    with pytest.raises(StrataError, match="made with other settings"):
        fill(plan, made)
    (plan.path / "plan.json").write_text("{")
    with pytest.raises(StrataError, match="holds no scenario_run"):
        fill(plan, made)


def fail_within(folder: ScenarioFolder, item: str) -> None:
    with folder.write_item(item) as draft:
        (draft / "half.txt").write_text("half")
        raise StrataError("no template")


def test_an_item_that_fails_leaves_the_others_and_says_why(tmp_path):
    plan = plan_in(tmp_path)
    with filling(plan, PROVENANCE, ITEMS) as folder:
        with pytest.raises(StrataError, match="no template"):
            fail_within(folder, "references")
        with folder.write_item("prompt_0") as draft:
            (draft / "numbers.txt").write_text("1")
            assert read_status(plan.path).state == "running"
        assert folder.unfinished == ["references", "prompt_1"]
        with pytest.raises(ValueError, match="references, prompt_1"):
            folder.finish(lambda draft: None)
    status = read_status(plan.path)
    assert (status.state, status.error) == ("failed", "references: no template")
    assert status.items == {"references": "failed", "prompt_0": "done", "prompt_1": "pending"}
    assert sorted(path.name for path in plan.path.iterdir()) == ["plan.json", "prompt_0", "status.json"]


def test_another_run_keeps_out(tmp_path):
    plan = plan_in(tmp_path)
    with filling(plan, PROVENANCE, ITEMS), pytest.raises(StrataError, match="another run is filling"):
        fill(plan, [])


def test_a_status_that_is_none_is_told(tmp_path):
    with pytest.raises(StrataError, match="holds no captured scenario"):
        read_status(tmp_path)
    (tmp_path / "status.json").write_text('{"state": "asleep"}')
    with pytest.raises(StrataError, match="damaged"):
        read_status(tmp_path)


def killed(work: Callable[[], None]) -> bool:
    """Work in a child process; whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def kill_after(calls: int) -> None:
    """Let this process be killed at its next call to the disk but so many."""

    def counted(call):
        def wrapped(*arguments, **options):
            nonlocal calls
            calls -= 1
            if calls < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapped

    for name in ("rename", "replace", "fsync", "open", "mkdir", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    fill(plan_in(tmp_path / "undisturbed"), [])
    whole, calls, remade = contents(plan_in(tmp_path / "undisturbed").path), 0, []

    def killed_at(plan: Plan, calls: int) -> bool:
        return killed(lambda: (kill_after(calls), fill(plan, [])))

    while killed_at(plan := plan_in(tmp_path / f"at_{calls}"), calls):
        made = []
        fill(plan, made)
        remade.append(made)
        assert contents(plan.path) == whole, calls
        assert not verify(plan.path)
        calls += 7
    assert remade[0] == ITEMS
    assert [] in remade
    # finished items are never lost again: there are only ever fewer to be made
    assert [len(made) for made in remade] == sorted((len(made) for made in remade), reverse=True)


def test_a_killed_run_says_so_until_it_goes_on(tmp_path):
    plan = plan_in(tmp_path)

    def work():
        with filling(plan, PROVENANCE, ITEMS) as folder, folder.write_item("references"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed(work)
    assert read_status(plan.path).state == "killed"
    assert read_status(plan.path).items["references"] == "running"
    fill(plan, made := [])
    assert made == ITEMS
    assert not list(plan.path.glob(".*"))
