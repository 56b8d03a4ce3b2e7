"""Sweeps and interruptions, in real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from src.artifacts import list_artifacts

ROOT = Path(__file__).parents[2]
FIT = ("cv_folds=2", "threads=1", "experiment.k=1")


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / f"{name}.py"), *arguments]


def script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    env = dict(os.environ)
    return subprocess.run(
        command(name, *arguments), cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def pairs_made(folder: Path) -> list[list[list[int]]]:
    return sorted(artifact.meta.identity["pairs"] for artifact in list_artifacts(folder / "artifacts", "operators"))


def test_a_sweep_makes_one_artifact_and_one_offline_run_per_job(tmp_path):
    script("collect_activations", "num_tokens=3000", cwd=tmp_path)
    sweep = ("-m", "experiment.L=0,1,2", "experiment.k=1,2", "logger=wandb_offline", "cv_folds=2")
    done = script("train_transport_operators", *sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len({path.name.rsplit("-", 1)[1] for path in runs}) == 6
    assert all(list(path.glob("*.wandb")) for path in runs)
    assert pairs_made(tmp_path) == [[[layer, leap]] for layer in (0, 1, 2) for leap in (1, 2)]


def test_jobs_run_at_once_and_each_failure_of_a_sweep_is_told(tmp_path):
    assert script("collect_activations", "num_tokens=3000", "threads=1", cwd=tmp_path).returncode == 0
    parallel = ("-m", "experiment.L=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = script("train_transport_operators", *parallel, *FIT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pairs_made(tmp_path) == [[[0, 1]], [[1, 1]]]
    done = script("train_transport_operators", "-m", "experiment.L=7,2,9", *FIT, cwd=tmp_path)
    assert done.returncode != 0
    for layer in (7, 9):
        assert f"experiment.L={layer} cv_folds=2" in done.stderr
        assert f"layer {layer} is out of range" in done.stderr
    assert "Traceback" not in done.stderr
    assert pairs_made(tmp_path) == [[[0, 1]], [[1, 1]], [[2, 1]]]


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(tmp_path):
    words = ("num_tokens=150000", "part_megabytes=1", "threads=1", "name=store")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def heed_interrupts() -> None:  # a shell that starts the tests in the background has it ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)

    start = command("collect_activations", *words)
    with subprocess.Popen(start, cwd=tmp_path, preexec_fn=heed_interrupts, **pipes) as process:
        store = tmp_path / "artifacts" / "activations" / "store"
        for _ in range(1200):
            if list(store.glob("part-*.json")) or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    told = "collect_activations: interrupted; run the same command again: what is finished is kept"
    assert errors.splitlines()[-1] == told
    assert "Traceback" not in errors
    kept = len(list(store.glob("part-*.json")))
    assert kept >= 1
    again = script("collect_activations", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    n_parts = len(list(store.glob("part-*.json")))
    assert f"{n_parts - kept} of {n_parts} parts to make" in again.stdout
