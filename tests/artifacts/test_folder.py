import errno
import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from src.artifacts import (
    META,
    DamagedArtifact,
    Meta,
    Plan,
    Provenance,
    choose_artifact,
    create_artifact,
    find_finished,
    label,
    list_artifacts,
    open_artifact,
    open_meta,
    verify,
)
from src.artifacts.folder import open_shared_folder
from src.artifacts.meta import describe_changes, meta_json
from src.errors import StrataError

PROVENANCE = Provenance(
    config={"seed": 1},
    seed=1,
    device="cpu",
    versions={"python": "3"},
    git_revision=None,
    started_at="2026-01-01T00:00:00",
)


def plan_in(root, name=None, **identity) -> Plan:
    return Plan(root, "moments", "tiny", {"width": 3, **identity}, name=name)


def make(plan, content="data", *, overwrite=False):
    with create_artifact(plan, PROVENANCE, overwrite=overwrite) as draft:
        (draft.path / "numbers").mkdir()
        (draft.path / "numbers" / "a.txt").write_text(content)
        draft.summary = {"rows": 7}
    return open_artifact(plan.path, plan.kind)


def test_an_artifact_tells_what_made_it(tmp_path):
    plan = plan_in(tmp_path)
    meta = make(plan).meta
    assert meta.fingerprint == plan.fingerprint
    assert plan.path.name == f"tiny-{plan.fingerprint[:8]}"
    assert meta.summary == {"rows": 7}
    assert meta.config == {"seed": 1}
    assert list(meta.files) == ["numbers/a.txt"]
    # sha256 of b"data", by sha256sum
    assert meta.files["numbers/a.txt"] == [4, "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"]
    assert verify(plan.path) == []


def test_fingerprint_depends_on_identity_parents_and_kind(tmp_path):
    plan = plan_in(tmp_path)
    parent = make(plan).parent
    others = [
        plan_in(tmp_path, width=4),
        replace(plan, parents=[parent]),
        replace(plan, kind="operators"),
    ]
    assert len({plan.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert replace(plan, label="other", name="other").fingerprint == plan.fingerprint


def test_a_finished_artifact_is_found_again_and_another_one_under_its_name_refused(tmp_path):
    plan = plan_in(tmp_path, name="mine")
    assert find_finished(plan, overwrite=False) is None
    make(plan)
    found = find_finished(plan, overwrite=False)
    assert found is not None
    assert found.path == plan.path
    other = plan_in(tmp_path, name="mine", width=4)
    with pytest.raises(StrataError, match=r"width: there 3, wanted 4[\s\S]*overwrite=true"):
        find_finished(other, overwrite=False)
    assert find_finished(other, overwrite=True) is None


def test_overwrite_replaces_the_folder_and_leaves_nothing_beside_it(tmp_path):
    plan = plan_in(tmp_path)
    make(plan, "old")
    make(plan, "new", overwrite=True)
    assert (plan.path / "numbers" / "a.txt").read_text() == "new"
    assert [path.name for path in plan.path.parent.iterdir()] == [plan.path.name]
    assert verify(plan.path) == []


def test_the_second_of_two_processes_keeps_what_the_first_made(tmp_path):
    plan = plan_in(tmp_path)
    with create_artifact(plan, PROVENANCE) as draft:
        (draft.path / "a.txt").write_text("second")
        in_another_process(make, plan, "first")
    assert (plan.path / "numbers" / "a.txt").read_text() == "first"
    assert [path.name for path in plan.path.parent.iterdir()] == [plan.path.name]


def test_a_failure_leaves_no_trace(tmp_path):
    plan = plan_in(tmp_path)

    def fail():
        with create_artifact(plan, PROVENANCE) as draft:
            (draft.path / "a.txt").write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert list(plan.path.parent.iterdir()) == []


def in_another_process(target, *args):
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


def die_while_making(plan):
    with create_artifact(plan, PROVENANCE) as draft:
        (draft.path / "a.txt").write_text("half")
        os._exit(9)


def test_the_draft_of_a_killed_process_is_invisible_and_removed_by_the_next(tmp_path):
    plan = plan_in(tmp_path)
    assert in_another_process(die_while_making, plan) == 9
    assert len(list(plan.path.parent.iterdir())) == 1
    assert list_artifacts(tmp_path, "moments") == []
    assert find_finished(plan, overwrite=False) is None
    make(plan)
    assert [path.name for path in plan.path.parent.iterdir()] == [plan.path.name]


def die_while_replacing(plan):
    rename = os.rename

    def rename_then_die(source, target):
        rename(source, target)
        os._exit(9)

    os.rename = rename_then_die
    make(plan, "new", overwrite=True)


def test_a_kill_between_the_renames_of_a_replacement_loses_nothing(tmp_path):
    plan = plan_in(tmp_path)
    make(plan, "old")
    assert in_another_process(die_while_replacing, plan) == 9
    assert not plan.path.exists()
    found = find_finished(plan, overwrite=False)
    assert found is not None
    assert (found.path / "numbers" / "a.txt").read_text() == "new"
    assert [path.name for path in plan.path.parent.iterdir()] == [plan.path.name]


def test_the_draft_of_a_living_process_stays(tmp_path):
    plan = plan_in(tmp_path)
    with create_artifact(plan, PROVENANCE) as draft:
        (draft.path / "a.txt").write_text("first")
        in_another_process(make, plan_in(tmp_path, name=plan.path.name, width=9), "second")
        assert (draft.path / "a.txt").exists()


def test_a_damaged_artifact_is_replaced_by_the_same_one(tmp_path):
    plan = plan_in(tmp_path)
    make(plan, "good")
    (plan.path / "numbers" / "a.txt").write_text("evil")
    make(plan, "good")
    assert verify(plan.path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_is_never_removed(tmp_path, overwrite):
    plan = plan_in(tmp_path, name="mine")
    plan.path.mkdir(parents=True)
    (plan.path / "thesis.tex").write_text("years of work")
    with pytest.raises(StrataError, match=r"mine is there, and holds no moments.*another name="):
        find_finished(plan, overwrite=overwrite)
    with pytest.raises(StrataError, match="holds no moments"):
        open_shared_folder(plan, overwrite=overwrite)
    assert (plan.path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("content", ["{", "[]", '{"title": "mine"}', '{"kind": "moments"}'])
def test_a_folder_with_a_meta_json_of_somebody_else_is_never_removed(tmp_path, content):
    plan = plan_in(tmp_path, name="mine")
    plan.path.mkdir(parents=True)
    (plan.path / META).write_text(content)
    (plan.path / "precious.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(StrataError, match=r"meta.json is damaged or foreign: .*move it away yourself"):
            find_finished(plan, overwrite=overwrite)
    assert (plan.path / "precious.txt").exists()


def test_an_edited_meta_json_does_not_let_other_settings_replace_a_named_artifact(tmp_path):
    folder = make(plan_in(tmp_path, name="mine")).path
    values = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps({**values, "seed": 5}))
    with pytest.raises(StrataError, match=r"it was edited.*overwrite=true") as error:
        find_finished(plan_in(tmp_path, name="mine", width=4), overwrite=False)
    assert not isinstance(error.value, DamagedArtifact)  # which a stage would take as leave to make it again


def test_names_that_begin_alike_keep_their_own_drafts(tmp_path):
    make(plan_in(tmp_path, name="foo.bar"))
    aside = tmp_path / "moments" / ".foo.bar.0123456789ab.replaced"
    (tmp_path / "moments" / "foo.bar").rename(aside)
    assert find_finished(plan_in(tmp_path, name="foo"), overwrite=False) is None
    assert aside.exists()
    assert find_finished(plan_in(tmp_path, name="foo.bar"), overwrite=False) is not None


def test_a_leftover_draft_with_a_broken_meta_json_is_cleared_away(tmp_path):
    draft = tmp_path / "moments" / ".mine.0123456789ab.draft"
    draft.mkdir(parents=True)
    (draft / META).write_text("{")
    make(plan_in(tmp_path, name="mine"))
    assert not draft.exists()


def test_an_artifacts_folder_that_can_t_be_is_one_message(tmp_path):
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", Path("/proc/foo"), tmp_path / ("long" * 100)):
        with pytest.raises(StrataError, match="artifacts_dir="):
            make(plan_in(root))


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "is full"), (errno.EFBIG, "no file so large"), (errno.EACCES, "can't be written")],
)
def test_disk_errors_name_the_place_and_the_remedy(tmp_path, code, words):
    plan = plan_in(tmp_path)
    with (
        pytest.raises(StrataError, match=f"{plan.path.name}.*{words}.*artifacts_dir="),
        create_artifact(plan, PROVENANCE),
    ):
        raise OSError(code, os.strerror(code))


def test_verify_finds_every_kind_of_damage(tmp_path):
    folder = make(plan_in(tmp_path)).path
    file = folder / "numbers" / "a.txt"
    file.write_text("dat")
    assert verify(folder) == ["numbers/a.txt: has 3 bytes instead of 4"]
    file.write_text("dote")
    assert verify(folder) == ["numbers/a.txt: its content has changed (checksum)"]
    file.unlink()
    (folder / "more.txt").write_text("x")
    assert verify(folder) == [f"more.txt: not listed in {META}", "numbers/a.txt: missing"]


def test_verify_finds_edited_settings(tmp_path):
    folder = make(plan_in(tmp_path)).path
    values = json.loads((folder / META).read_text())
    values["identity"]["width"] = 4
    (folder / META).write_text(json.dumps(values))
    with pytest.raises(StrataError, match="it was edited"):
        verify(folder)
    # whoever makes a new digest too
    (folder / META).write_text(json.dumps(meta_json(Meta(**_without_digest(values)))))
    assert verify(folder) == [f"{META}: its settings don't give its fingerprint"]


@pytest.mark.parametrize("key", ["summary", "files", "seed", "kind"])
def test_no_reader_opens_an_edited_meta(tmp_path, key):
    folder = make(plan_in(tmp_path)).path
    values = json.loads((folder / META).read_text())
    values[key] = {"summary": {"rows": 8}, "files": None, "seed": 2, "kind": "other"}[key]
    (folder / META).write_text(json.dumps(values))
    with pytest.raises(StrataError, match=r"damaged or foreign.*overwrite=true"):
        open_artifact(folder, "moments")
    assert list_artifacts(tmp_path, "moments") == []


def _without_digest(values):
    return {key: value for key, value in values.items() if key != "digest"}


def _reseal(folder, **changes):
    values = _without_digest(json.loads((folder / META).read_text()))
    (folder / META).write_text(json.dumps(meta_json(Meta(**{**values, **changes}))))


def test_foreign_and_unfinished_folders_are_refused_with_a_remedy(tmp_path):
    artifact = make(plan_in(tmp_path))
    with pytest.raises(StrataError, match="holds 'moments', but 'operators' is needed"):
        open_artifact(artifact.path, "operators")
    _reseal(artifact.path, format_version=99)
    with pytest.raises(StrataError, match=r"format 99.*overwrite=true"):
        open_artifact(artifact.path, "moments")
    _reseal(artifact.path, kind="horoscopes")
    assert verify(artifact.path) == [f"{META}: this version of Strata knows no kind 'horoscopes'"]
    (artifact.path / META).write_text("{")
    with pytest.raises(StrataError, match=r"damaged or foreign.*overwrite=true"):
        open_meta(artifact.path)
    (artifact.path / META).write_text('["a list"]')
    with pytest.raises(StrataError, match="damaged or foreign"):
        open_meta(artifact.path)
    (artifact.path / META).unlink()
    with pytest.raises(StrataError, match="unfinished"):
        open_meta(artifact.path)
    with pytest.raises(StrataError, match="check the path"):
        open_meta(tmp_path / "nowhere")


def test_choosing_among_candidates(tmp_path):
    def choose(chosen, candidates):
        return choose_artifact(tmp_path, "moments", chosen, candidates, key="moments", remedy="make one")

    with pytest.raises(StrataError, match="make one"):
        choose(None, [])
    first, second = make(plan_in(tmp_path, name="first")), make(plan_in(tmp_path, name="second", width=4))
    assert choose(None, [second]).path == second.path
    with pytest.raises(StrataError, match=r"moments=first\s+moments=second"):
        choose(None, [first, second])
    assert choose("first", [first, second]).path == first.path
    assert choose(str(second.path), []).path == second.path
    with pytest.raises(
        StrataError, match=rf"moments=nope: neither a path.*{tmp_path}/moments \(there: first, second\)"
    ):
        choose("nope", [])
    with pytest.raises(StrataError, match=r"\(there: first, second\); did you mean second\?$"):
        choose("secnd", [])


def test_a_name_that_leaves_its_folder_is_refused(tmp_path):
    with pytest.raises(StrataError, match="can't be a folder name"):
        _ = plan_in(tmp_path, name="../outside").path


def test_labels_hold_only_what_a_path_can():
    assert label("google/gemma-2-2b", "wiki text/é") == "google-gemma-2-2b-wiki-text"
    assert label(".", "модель") == "unnamed"
    assert label("a" * 300, "b") == "a" * 40 + "-b"
    assert label("L0_k1_j+1") != label("L0_k1_j-1")


def test_a_shared_folder_is_gone_on_with_but_never_mixed(tmp_path):
    plan = plan_in(tmp_path, name="shared")
    open_shared_folder(plan)
    (plan.path / "part").write_text("done")
    open_shared_folder(plan)
    assert (plan.path / "part").exists()
    with pytest.raises(StrataError, match="width: there 3, wanted 4"):
        open_shared_folder(plan_in(tmp_path, name="shared", width=4))
    open_shared_folder(plan_in(tmp_path, name="shared", width=4), overwrite=True)
    assert not (plan.path / "part").exists()


def test_long_values_that_differ_are_told_from_where_they_differ():
    before, after = {"text": 300 * "a" + "b" + 300 * "c"}, {"text": 300 * "a" + "d" + 300 * "c"}
    (line,) = describe_changes(before, after)
    assert len(line) < 300
    there, wanted = line.split("wanted")
    assert "ab" in there
    assert "ad" in wanted
    assert describe_changes({"k": 1}, {"k": 2}) == ["k: there 1, wanted 2"]
