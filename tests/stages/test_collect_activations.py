"""collect_activations.py as a user runs it: interrupted, damaged, shared between workers, or told something wrong."""

import collections
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import collect_activations
from src.activations import collect, job
from src.activations.store import ActivationStore
from src.artifacts import open_artifact, verify
from src.config.stages import CollectConfig
from src.errors import StrataError
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_project import TinyProject, make_project, part_digests, start_forked, write_text

# a part is one batch, since a batch of such sequences would be larger than a part
SMALL_PARTS = ["max_length=60000", "part_megabytes=1", "batch_size=3"]
N_PARTS = 20


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> TinyProject:
    return make_project(tmp_path_factory.mktemp("project"), n_documents=3 * N_PARTS)


@pytest.fixture(scope="module")
def undisturbed(project) -> dict[str, str]:
    """What every other way to the same store must give, file by file."""
    finished = project.collect(*SMALL_PARTS, "artifacts_dir=undisturbed")
    assert finished is not None
    assert finished.meta.summary["layout"]["sequences_per_part"] == 3
    return part_digests(finished.path)


@pytest.fixture
def copied(project, undisturbed, tmp_path) -> TinyProject:
    """A project of a test's own, with the finished store."""
    for name in ("model", "text.jsonl"):
        os.symlink(project.folder / name, tmp_path / name)
    shutil.copytree(project.folder / "undisturbed", tmp_path / "artifacts")
    return TinyProject(tmp_path)


def finished_parts(store: Path) -> list[str]:
    return sorted(path.name for path in store.glob("part-*.json"))


def test_a_user_collects_and_the_same_command_again_reuses(project):
    first = project.script("artifacts_dir=by_hand", "name=null", "layers=[0,2]", "hooks=[resid_post,mlp_out]", "seed=1")
    assert first.returncode == 0, first.stderr
    assert "1 of 1 parts to make" in first.stdout
    assert "counted in statistics" in first.stdout
    (meta,) = (project.folder / "by_hand" / "activations").glob("tiny-text.jsonl-all-*/meta.json")
    assert verify(meta.parent) == []
    before = {path: path.stat().st_mtime_ns for path in meta.parent.rglob("*")}
    again = project.script("artifacts_dir=by_hand", "name=null", "layers=[0,2]", "hooks=[resid_post,mlp_out]", "seed=1")
    assert again.returncode == 0, again.stderr
    assert f"{meta.parent.relative_to(project.folder)} is already there and fits: reused" in again.stdout
    assert "counted in statistics" in again.stdout
    assert "parts to make" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in meta.parent.rglob("*")} == before


def test_what_is_reused_is_not_computed(project, undisturbed, monkeypatch):
    def forbidden(*_arguments: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(collect, "run_with_hooks", forbidden)
    monkeypatch.setattr(job, "run_with_hooks", forbidden)
    finished = project.collect(*SMALL_PARTS, "artifacts_dir=undisturbed")
    assert finished is not None
    assert part_digests(finished.path) == undisturbed


def test_killed_at_ten_random_moments_a_collection_ends_up_bit_identical(project, undisturbed, tmp_path):
    draws = random.Random(20)
    artifacts = f"artifacts_dir={tmp_path}"
    store = tmp_path / "activations" / "store"
    made_at = [path.stat().st_mtime for path in sorted(project.store("undisturbed").glob("part-*.json"))]
    part_seconds = float(np.median(np.diff(made_at)))
    finished_at: dict[str, int] = {}
    moments = collections.Counter()
    for kill in range(10):
        process = project.start(*SMALL_PARTS, artifacts)
        if kill < 2:  # while it starts
            time.sleep(draws.uniform(0, 0.5))
        else:  # at any moment of making a part
            give_up = time.monotonic() + 300
            while len(finished_parts(store)) <= len(finished_at) and process.is_alive() and time.monotonic() < give_up:
                time.sleep(0.001)
            time.sleep(draws.uniform(0, part_seconds))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (project.folder / "log.txt").read_text()
        assert not (store / "meta.json").exists()
        drafts = list(store.glob(".*"))
        moments["writing a part" if drafts else "between parts" if store.exists() else "before the first part"] += 1
        for name, then in finished_at.items():
            assert (store / name).stat().st_mtime_ns == then, f"{name} was made twice"
        finished_at = {name: (store / name).stat().st_mtime_ns for name in finished_parts(store)}
    assert moments["writing a part"] >= 2, moments
    assert 8 <= len(finished_at) < N_PARTS
    process = project.start(*SMALL_PARTS, artifacts)
    process.join(300)
    assert process.exitcode == 0, (project.folder / "log.txt").read_text()
    assert {name: (store / name).stat().st_mtime_ns for name in finished_at} == finished_at
    assert part_digests(store) == undisturbed
    assert verify(store) == []


def die_while_sealing(arguments: list[str], folder: str) -> None:
    """Run the stage, and die as a killed process does when meta.json is about to get its name."""
    from src.artifacts import files
    from tests.fixtures.tiny_project import run_main

    replace = os.replace

    def fatal(source: str, target: str) -> None:
        if str(target).endswith("store/meta.json"):
            os._exit(9)
        replace(source, target)

    files.os.replace = fatal
    run_main(arguments, folder, "log.txt", {})


def test_killed_while_it_seals_a_collection_ends_up_bit_identical(copied, undisturbed):
    (copied.store() / "meta.json").unlink()
    process = start_forked(die_while_sealing, [*copied.overrides, *SMALL_PARTS], str(copied.folder))
    process.join(300)
    assert process.exitcode == 9
    assert list(copied.store().glob(".meta.json.*.tmp"))
    assert copied.collect(*SMALL_PARTS) is not None
    assert part_digests(copied.store()) == undisturbed
    assert verify(copied.store()) == []


CHUNK = "part-00004.zarr/resid_post/01/c/0/0"


def test_a_truncated_file_is_found_and_remade_by_the_same_command(copied, undisturbed):
    os.truncate(copied.store() / CHUNK, 100)
    (problem,) = verify(copied.store())
    assert problem.startswith(f"{CHUNK}: has 100 bytes instead of ")
    assert copied.collect(*SMALL_PARTS) is not None
    assert part_digests(copied.store()) == undisturbed
    assert verify(copied.store()) == []


def test_a_flipped_bit_is_found_and_remade_with_repair(copied, undisturbed):
    content = bytearray((copied.store() / CHUNK).read_bytes())
    content[200] ^= 1
    (copied.store() / CHUNK).write_bytes(content)
    assert verify(copied.store()) == [f"{CHUNK}: its content has changed (checksum)"]
    copied.collect(*SMALL_PARTS)  # sizes are right: it is reused as it is, and whoever reads the part is told
    assert part_digests(copied.store()) != undisturbed
    assert copied.collect(*SMALL_PARTS, "repair=true") is not None
    assert part_digests(copied.store()) == undisturbed
    assert verify(copied.store()) == []


@pytest.mark.parametrize("name", ["plan.json", "report.json", "meta.json"])
@pytest.mark.parametrize("repair", ["true", "false"])
def test_a_damaged_file_beside_the_parts_is_written_again(copied, undisturbed, name, repair):
    damaged = copied.store() / name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert copied.collect(*SMALL_PARTS, f"repair={repair}") is not None
    assert verify(copied.store()) == []
    assert part_digests(copied.store()) == undisturbed


def test_a_changed_manifest_makes_its_part_again(copied, undisturbed):
    manifest = copied.store() / "part-00002.json"
    manifest.write_text(manifest.read_text().replace('"bos": 3', '"bos": 2'))
    assert verify(copied.store()) == ["part-00002.json: its content has changed (checksum)"]
    made = copied.collect(*SMALL_PARTS)
    assert part_digests(copied.store()) == undisturbed
    assert verify(copied.store()) == []
    assert made is not None
    assert made.meta.summary["keep"]["bos"] == 3 * N_PARTS


def test_a_foreign_file_in_a_store_is_never_taken_in(copied):
    (copied.store() / "extra.txt").write_text("not ours")
    (copied.store() / "report.json").unlink()  # so that it is sealed again
    assert copied.collect(*SMALL_PARTS, "repair=true") is not None
    assert verify(copied.store()) == ["extra.txt: not listed in meta.json"]


def test_damaged_sequences_are_made_again(copied, undisturbed, capsys):
    (table,) = (copied.folder / "artifacts" / "sequences").glob("*/sequences.parquet")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    made = copied.collect(*SMALL_PARTS, "name=other")
    assert made is not None
    assert part_digests(made.path) == undisturbed
    output = capsys.readouterr()
    assert f"{table.parent.name} is damaged (sequences.parquet: its content has changed" in output.err


def test_a_model_folder_gives_its_own_name_and_documents_that_are_cut_are_told(project, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(project.folder)
    dataset = ["dataset.dataset_name=text.jsonl", "dataset.dataset_split=null", "max_length=8"]
    words = [f"model.path={project.folder / 'model'}", *dataset, f"artifacts_dir={tmp_path}", "threads=1"]
    config = compose("collect_activations", words)
    made = run_stage(collect_activations.run, CollectConfig, "collect_activations", config, words)
    assert made is not None
    assert made.path.name.startswith("model-text.jsonl")
    assert made.meta.config["model"]["name"] == "model"
    assert made.meta.device == "cpu"
    lines = Path("text.jsonl").read_text().splitlines()
    n_cut = sum(len(json.loads(line)["text"].split()) > 7 for line in lines)
    told = (
        f"{n_cut} of {len(lines)} documents were cut off at max_length=8 tokens (long_documents=split keeps the rest)"
    )
    assert told in capsys.readouterr().out


def test_a_model_folder_without_a_tokenizer_is_named(project, tmp_path):
    bare = shutil.copytree(project.folder / "model", tmp_path / "bare")
    for path in bare.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(StrataError, match=r"bare holds no tokenizer"):
        project.collect(f"artifacts_dir={tmp_path}", f"model.path={bare}")


def test_a_lost_part_is_remade(copied, undisturbed):
    shutil.rmtree(copied.store() / "part-00002.zarr")
    (copied.store() / "part-00007.json").unlink()
    assert copied.collect(*SMALL_PARTS) is not None
    assert part_digests(copied.store()) == undisturbed


def test_two_workers_at_once_fill_the_store_that_one_fills(project, undisturbed, tmp_path):
    artifacts = f"artifacts_dir={tmp_path}"
    store = tmp_path / "activations" / "store"
    both = [
        project.start(*SMALL_PARTS, artifacts, "num_workers=2", "worker_index=0", log="worker0.txt"),
        project.start(*SMALL_PARTS, artifacts, log="worker1.txt", WORLD_SIZE="2", RANK="1"),
    ]
    while any(process.is_alive() for process in both):
        if (store / "meta.json").exists():
            assert len(finished_parts(store)) == N_PARTS
        time.sleep(0.01)
    logs = [(project.folder / f"worker{index}.txt").read_text() for index in (0, 1)]
    assert [process.exitcode for process in both] == [0, 0], logs
    assert any("counted in statistics" in log for log in logs)
    assert part_digests(store) == undisturbed
    assert verify(store) == []


def test_workers_that_were_given_the_same_parts_do_no_harm(project, undisturbed, tmp_path):
    artifacts = f"artifacts_dir={tmp_path}"
    given = [(2, 0), (2, 0), (3, 1), (2, 1)]
    workers = [
        project.start(*SMALL_PARTS, artifacts, f"num_workers={n}", f"worker_index={i}", log=f"same{place}.txt")
        for place, (n, i) in enumerate(given)
    ]
    for worker in workers:
        worker.join(300)
    logs = [(project.folder / f"same{place}.txt").read_text() for place in range(len(given))]
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0], logs
    store = tmp_path / "activations" / "store"
    assert part_digests(store) == undisturbed
    assert verify(store) == []


def test_a_worker_that_died_is_healed_by_a_plain_run(project, undisturbed, tmp_path):
    artifacts = f"artifacts_dir={tmp_path}"
    store = tmp_path / "activations" / "store"
    assert project.collect(*SMALL_PARTS, artifacts, "num_workers=2", "worker_index=1") is None
    assert finished_parts(store) == [f"part-{part:05d}.json" for part in range(1, N_PARTS, 2)]
    with pytest.raises(StrataError, match=r"no finished artifact .* run its stage again to go on"):
        open_artifact(store, "activations")
    assert project.collect(*SMALL_PARTS, artifacts) is not None
    assert part_digests(store) == undisturbed


def test_overwrite_remakes_a_finished_store(copied, undisturbed):
    (copied.store() / CHUNK).write_bytes(b"spoilt")
    (copied.store() / "stray.txt").write_text("not ours")
    assert copied.collect(*SMALL_PARTS, "overwrite=true") is not None
    assert part_digests(copied.store()) == undisturbed
    assert verify(copied.store()) == []


def test_a_name_that_is_taken_by_other_settings_is_refused_unless_overwritten(copied, undisturbed):
    with pytest.raises(StrataError) as error:
        copied.collect(*SMALL_PARTS, "storage_dtype=float32")
    message = str(error.value)
    assert 'layout.storage_dtype: there "bfloat16", wanted "float32"' in message
    assert "choose another name=..., or remake it with overwrite=true" in message
    assert part_digests(copied.store()) == undisturbed
    remade = copied.collect(*SMALL_PARTS, "storage_dtype=float32", "overwrite=true")
    assert remade is not None
    assert (
        next(iter(ActivationStore(remade))).activations(ActivationStore(remade).layout.hook_points[0]).dtype
        == torch.float32
    )


def test_an_unfinished_store_of_other_settings_is_refused(copied):
    (copied.store() / "meta.json").unlink()
    before = part_digests(copied.store())
    with pytest.raises(StrataError, match=r"was made with other settings:\s+layout.hook_points"):
        copied.collect(*SMALL_PARTS, "layers=[1]")
    assert part_digests(copied.store()) == before


@pytest.mark.parametrize("content", ["not json", '{"kind": "mlflow-run"}', "[]"])
def test_a_foreign_meta_json_is_refused_and_left_alone(project, tmp_path, content):
    store = tmp_path / "activations" / "store"
    store.mkdir(parents=True)
    (store / "meta.json").write_text(content)
    with pytest.raises(StrataError, match=r"meta\.json is damaged or foreign: choose another name"):
        project.collect(*SMALL_PARTS, f"artifacts_dir={tmp_path}")
    assert [path.name for path in store.iterdir()] == ["meta.json"]
    assert (store / "meta.json").read_text() == content


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batchsize=3", "batchsize: unknown key; did you mean batch_size"),
        ("batch_size=many", "batch_size: 'many' is not allowed; expected int >= 1"),
        ("model.path=nowhere", "model.path=nowhere: no such folder"),
        ("dataset.dataset_name=nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_a_wrong_word_on_the_command_line_ends_with_its_message_and_nothing_written(project, override, message):
    done = project.script("artifacts_dir=refused", override)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((project.folder / "refused").rglob("*.json"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["layers=[1,3]"], r"layers: tiny has no layer 3; choose from its layers 0 to 2"),
        (["layers=[]"], r"layers: \[\] is not allowed; .*with length >= 1"),
        (["layers=1.5"], r"layers: 1.5 is not allowed"),
        (["hooks=[resid_mid]"], r"hooks: .*'resid_mid'"),
        (["storage_dtype=int8"], r"storage_dtype: 'int8' is not allowed"),
        (["num_workers=2"], "set num_workers and worker_index together"),
        (["device=cuda:7"], r"device=cuda:7 is not available here: choose one of auto, cpu"),
        (["overwrite=true", "num_workers=2", "worker_index=0"], "overwrite=true with 2 workers"),
    ],
)
def test_impossible_settings_are_refused_with_a_remedy(project, tmp_path, overrides, message):
    with pytest.raises(StrataError, match=message):
        project.collect(f"artifacts_dir={tmp_path}", *overrides)
    assert not (tmp_path / "activations").exists()
    assert "layers=[1,3]" not in overrides or not (tmp_path / "sequences").exists()  # said before text is tokenised


def test_an_empty_dataset_is_named(project, tmp_path):
    (project.folder / "empty.jsonl").write_text("")
    (project.folder / "blank.jsonl").write_text(json.dumps({"text": "  "}) + "\n")
    for name, reason in (("empty", "is empty"), ("blank", "all 1 documents are empty")):
        with pytest.raises(StrataError, match=rf"{name}\.jsonl.*{reason}"):
            project.collect(f"artifacts_dir={tmp_path}", f"dataset.dataset_name={name}.jsonl")
    assert not list(tmp_path.rglob("meta.json"))


def test_sequences_beyond_the_models_positions_are_refused(project, tmp_path):
    write_text(project.folder / "long.jsonl", 3, longest=400)
    with pytest.raises(StrataError, match=r"sequences of \d+ tokens, and tiny has 64 positions: set max_length=64"):
        project.collect(f"artifacts_dir={tmp_path}", "dataset.dataset_name=long.jsonl", "max_length=500")
    made = project.collect(f"artifacts_dir={tmp_path}", "dataset.dataset_name=long.jsonl", "max_length=64")
    assert made is not None


def spoil(value: float) -> TinyProject:
    def change(module: PreTrainedModel) -> None:
        module.model.layers[1].mlp.down_proj.weight.data[2, 3] = value

    return change


def test_nan_in_a_weight_is_reported_with_its_layer_or_masked(tmp_path):
    project = make_project(tmp_path, n_documents=6, change=spoil(float("nan")))
    with pytest.raises(StrataError) as error:
        project.collect()
    message = str(error.value)
    assert message.startswith("resid_post.1 is NaN or infinite")
    assert "non_finite=mask" in message
    assert not list(project.store().glob("part-*"))
    assert not list(project.store().glob(".*"))
    made = project.collect("non_finite=mask", "name=masked")
    assert made is not None
    keep = made.meta.summary["keep"]
    assert (keep["counted"], keep["bos"]) == (0, 0)
    assert keep["non_finite"] == made.meta.summary["layout"]["n_tokens"]


def test_a_value_too_large_for_float16_is_reported_with_its_layer(tmp_path):
    project = make_project(tmp_path, n_documents=6, change=spoil(1e6))
    with pytest.raises(
        StrataError, match=r"^resid_post\.1 reaches .*, which float16 can't hold .*storage_dtype=bfloat16"
    ):
        project.collect("storage_dtype=float16")
    assert not list(project.store().glob("part-*"))
    assert project.collect("storage_dtype=bfloat16", "name=wider") is not None


def test_a_disk_without_room_is_refused_before_the_model_runs(project, tmp_path, monkeypatch):
    asked = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(Path(path))
        return SimpleNamespace(total=10**9, used=10**9, free=64 * 2**20)

    monkeypatch.setattr(job.shutil, "disk_usage", usage)
    with pytest.raises(StrataError) as error:
        project.collect(*SMALL_PARTS, f"artifacts_dir={tmp_path}")
    message = str(error.value)
    assert "GB more, and its disk has 0.0671 GB free" in message
    assert "storage_dtype=bfloat16, or set artifacts_dir=... to another disk" in message
    assert tmp_path in [asked[-1], *asked[-1].parents]
    assert not (tmp_path / "activations").exists()


def test_a_disk_that_fills_up_is_named_and_keeps_whole_parts_only(project, undisturbed, tmp_path, monkeypatch):
    fsync = os.fsync
    written = []

    def fills_up(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 200:
            raise OSError(28, os.strerror(28))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(
        StrataError, match=r"the disk that holds .*store is full: free space there or set artifacts_dir"
    ):
        project.collect(*SMALL_PARTS, f"artifacts_dir={tmp_path}")
    store = tmp_path / "activations" / "store"
    found = part_digests(store)
    assert 0 < len(finished_parts(store)) < N_PARTS
    assert found.items() <= undisturbed.items()
    monkeypatch.undo()
    assert project.collect(*SMALL_PARTS, f"artifacts_dir={tmp_path}") is not None
    assert part_digests(store) == undisturbed


def test_the_estimate_bounds_what_is_written(project, undisturbed, monkeypatch, tmp_path):
    needed = []
    refuse = job.refuse_full_disk

    def note(store: Path, bytes_needed: int, *, overwrite: bool) -> None:
        needed.append(bytes_needed)
        refuse(store, bytes_needed, overwrite=overwrite)

    monkeypatch.setattr(job, "refuse_full_disk", note)
    made = project.collect(f"artifacts_dir={tmp_path}", "storage_dtype=float32")
    assert made is not None
    layout = made.meta.summary["layout"]
    assert needed == [layout["n_tokens"] * (3 * 16 * 4 + 9)]
    rows = sum(path.stat().st_size for path in made.path.rglob("c/**/*") if path.is_file())
    assert rows <= needed[0] + 100 * 7  # headers of the compressor


def test_keep_reasons_of_the_text_reach_the_store(project, undisturbed):
    store = ActivationStore(open_artifact(project.folder / "undisturbed/activations/store", "activations"))
    keep = np.concatenate([part.keep for part in store])
    assert np.bincount(keep, minlength=6).tolist() == list(store.artifact.meta.summary["keep"].values())
    assert store.artifact.meta.summary["hidden_states_check"]["layers_compared"] == 2
