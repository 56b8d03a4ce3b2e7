import json
import resource
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.artifacts import Plan, Provenance, create_artifact, open_artifact, write_json
from src.artifacts.tensors import load_tensors, save_tensors
from src.errors import StrataError
from src.scenarios.scenario import Scenario
from src.scenarios.states import Conversation, Rows
from src.scenarios.storage.arrays import pack_attention, unpack_attention
from src.scenarios.storage.run_folder import (
    read_captured,
    read_conversation,
    read_references,
    write_conversation,
    write_references,
    write_scenario,
)
from src.scenarios.storage.steps import add_step
from tests.fixtures.scenario_runs import random_conversation, random_references, random_rows

SCENARIO = Scenario.model_validate(
    {"name": "weather", "model": {"id": "tiny"}, "prompt": {"messages": [{"role": "user", "content": "hi"}]}}
)


def same(read: Rows, written: Rows) -> bool:
    """Equal in every bit, dtypes included."""
    return (
        read.layers == written.layers
        and all(
            read.arrays[name].dtype == array.dtype and torch.equal(read.arrays[name], array)
            for name, array in written.arrays.items()
        )
        and set(read.arrays) == set(written.arrays)
    )


def plain(conversation: Conversation) -> str:
    """All but the states, as text: NaN equals NaN there."""
    empty = Rows((), {})
    generations = [replace(made, rows=empty) for made in conversation.generations]
    return str(asdict(replace(conversation, snapshot_rows=empty, token_rows=None, generations=generations)))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layers", [(0, 1, 2), (1, 4)])
def test_a_conversation_comes_back_as_it_was(tmp_path, full, layers):
    written = random_conversation(layers=layers, full=full)
    write_conversation(tmp_path, written)
    read = read_conversation(tmp_path)
    assert plain(read) == plain(written)
    assert same(read.snapshot_rows, written.snapshot_rows)
    for place, made in enumerate(written.generations):
        assert same(read.generations[place].rows, made.rows)
    assert (read.token_rows is not None) == full
    if written.token_rows is not None:
        assert same(read.token_rows, written.token_rows)
        assert len(read.token_rows) == 9
    assert torch.equal(read.snapshot_rows.get("resid_pre"), written.snapshot_rows.get("resid_pre"))


def test_references_come_back_as_they_were(tmp_path):
    written = random_references()
    write_references(tmp_path, written)
    read = read_references(tmp_path)
    assert read.texts == written.texts
    assert list(read.rows) == ["end", "answer"]
    assert all(same(read.rows[position], written.rows[position]) for position in written.rows)


def test_nothing_captured_is_a_conversation_too(tmp_path):
    """Preset last_token, with every group of states off."""
    made = random_conversation()
    none = Rows((), {})
    bare = replace(
        made, snapshots=[], snapshot_rows=none, generations=[replace(g, rows=none) for g in made.generations]
    )
    write_conversation(tmp_path, bare)
    assert plain(read_conversation(tmp_path)) == plain(bare)


def test_bfloat16_and_values_that_are_not_finite_are_kept(tmp_path):
    rows = random_rows([1, 2, 3, 4, 5, 6, 7, 8], (0, 1))
    odd = {name: array.to(torch.bfloat16) for name, array in rows.arrays.items()}
    odd["resid_post"][0, 0, :2] = torch.tensor([torch.nan, torch.inf])
    odd["attention"][1, 0, 0, 0] = torch.nan
    write_conversation(tmp_path, replace(random_conversation(layers=(0, 1)), snapshot_rows=Rows((0, 1), odd)))
    read = read_conversation(tmp_path).snapshot_rows
    for name, array in odd.items():
        assert read.arrays[name].dtype == torch.bfloat16
        torch.testing.assert_close(read.arrays[name], array, rtol=0, atol=0, equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 1000), st.integers(0, 3))
def test_packed_attention_comes_back_whatever_its_zeros(keys, seed, spare):
    generator = torch.Generator().manual_seed(seed)
    width = max(1, max(keys) + spare)
    attention = torch.rand(2, len(keys), 3, width, generator=generator)
    attention[torch.rand(attention.shape, generator=generator) < 0.4] = 0
    for row, end in enumerate(keys):
        attention[:, row, :, end:] = 0
    packed, lengths = pack_attention(attention)
    assert torch.equal(unpack_attention(packed, lengths), attention)
    assert packed.shape[-1] <= sum(keys) + width


def test_attention_of_short_rows_takes_little_room(tmp_path):
    rows = random_rows([1, 1, 1, 1, 1, 1, 1, 64], (0, 1, 2))
    write_conversation(
        tmp_path, replace(random_conversation(), snapshot_rows=Rows((0, 1, 2), {"attention": rows.arrays["attention"]}))
    )
    stored = load_tensors(tmp_path / "states.safetensors", "")["snapshots/attention"]
    assert stored.shape == (3, 2, 7 + 64)


def test_steps_are_added_while_they_are_made(tmp_path):
    conversation = random_conversation()
    for place, generation in enumerate(conversation.generations):
        for step in generation.steps:
            add_step(tmp_path, place, step)
    before = (tmp_path / "steps_1.jsonl").stat()
    write_conversation(tmp_path, conversation)
    after = (tmp_path / "steps_1.jsonl").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert plain(read_conversation(tmp_path)) == plain(conversation)
    lines = (tmp_path / "steps_1.jsonl").read_text().splitlines()
    # no NaN, which JSON does not have
    assert [json.loads(line, parse_constant=pytest.fail)["entropy"] for line in lines] == [1.25, 1.25, "nan"]


def test_states_that_nobody_looks_at_are_not_read(tmp_path):
    """64 MB of token states, of which the process holds none after the snapshots were read."""
    big = {"resid_post": torch.zeros(3, 9, 600_000)}
    conversation = random_conversation()
    write_conversation(tmp_path, replace(conversation, token_rows=Rows((0, 1, 2), big)))
    before = resident_bytes()
    read = read_conversation(tmp_path)
    assert torch.equal(read.snapshot_rows.get("resid_post"), conversation.snapshot_rows.get("resid_post"))
    assert read.token_rows is not None
    assert resident_bytes() - before < 30e6
    assert float(read.token_rows.get("resid_post").sum()) == 0
    assert resident_bytes() - before > 30e6


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def edit_json(**changes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / "conversation.json").read_text())
        write_json(folder / "conversation.json", values | changes)

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_tensors(folder / "states.safetensors", "").items()}
        change(tensors)
        save_tensors(folder / "states.safetensors", tensors)

    return edit


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20]) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "conversation.json").unlink(), r"conversation.json can't be read \(No such file"),
        (cut("conversation.json"), "conversation.json is damaged or foreign"),
        (lambda folder: (folder / "conversation.json").write_text("[1]"), "conversation.json is damaged or foreign"),
        (edit_json(token_ids="x"), "token_ids"),
        (edit_json(tokens=["a"]), "tokens do not fit"),
        (edit_json(message_ends=[2, 99]), "message_ends do not fit"),
        (edit_json(snapshots=[{"message": 9, "position": "end", "token": 1}]), "snapshots do not fit"),
        (edit_json(layers=[0, 2, 1]), r"layers \[0, 2, 1\]"),
        (edit_json(layers=[0, 1]), "does not fit 8 rows of 2 layers"),
        (lambda folder: (folder / "states.safetensors").unlink(), "states.safetensors can't be read"),
        (cut("states.safetensors"), "states.safetensors can't be read"),
        (lambda folder: (folder / "states.safetensors").write_text("hello"), "states.safetensors can't be read"),
        (edit_tensors(lambda t: t.update({"generation_7/q": t["generation_1/q"].clone()})), "generation_7/q"),
        (edit_tensors(lambda t: t.update({"snapshots/soul": t["snapshots/q"].clone()})), "snapshots/soul"),
        (edit_tensors(lambda t: t.update({"snapshots/q": t["snapshots/q"][:, :2]})), "snapshots/q is .* fit 8 rows"),
        (edit_tensors(lambda t: t.update({"snapshots/q": t["snapshots/q"].int()})), "snapshots/q"),
        (edit_tensors(lambda t: t["snapshots/attention_keys"].add_(1)), "snapshots/attention"),
        (edit_tensors(lambda t: t.pop("snapshots/attention_keys")), "snapshots/attention"),
        (lambda folder: (folder / "steps_1.jsonl").unlink(), "steps_1.jsonl can't be read"),
        (cut("steps_0.jsonl"), "steps_0.jsonl is damaged"),
        (lambda folder: (folder / "steps_0.jsonl").write_text(""), "generation_0/.* fit 0 rows"),
    ],
)
def test_what_is_damaged_is_told_in_one_message(tmp_path, damage, message):
    write_conversation(tmp_path, random_conversation())
    damage(tmp_path)
    with pytest.raises(StrataError, match=message) as caught:
        read_conversation(tmp_path)
    assert "capture the scenario again" in str(caught.value)
    assert "\n" not in str(caught.value)


def artifact_with(root: Path, summary: dict[str, object], names: tuple[str, ...] = ("prompt_0",)):
    plan = Plan(root, "scenario_run", "weather", {})
    with create_artifact(plan, Provenance({}, 0, "cpu", {}, None, "now")) as draft:
        write_scenario(draft.path, SCENARIO)
        for name in names:
            (draft.path / name).mkdir()
            write_conversation(draft.path / name, random_conversation(name))
        draft.summary = summary
    return open_artifact(plan.path, "scenario_run")


def test_an_artifact_is_read_whole(tmp_path):
    names = ("prompt_0", "prompt_1")
    read = read_captured(artifact_with(tmp_path, {"conversations": list(names), "model": {"n_layers": 3}}, names))
    assert [conversation.name for conversation in read.conversations] == list(names)
    assert (read.scenario, read.references, read.model) == (SCENARIO, None, {"n_layers": 3})


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ({}, "does not say which conversations"),
        ({"conversations": ["../prompt_0"], "model": {}}, "does not say which conversations"),
        ({"conversations": ["prompt_7"], "model": {}}, "prompt_7/conversation.json can't be read"),
    ],
)
def test_an_artifact_that_names_no_conversations_of_its_own_is_refused(tmp_path, summary, message):
    with pytest.raises(StrataError, match=message):
        read_captured(artifact_with(tmp_path, summary))


def test_a_conversation_in_anothers_place_is_refused(tmp_path):
    artifact = artifact_with(tmp_path, {"conversations": ["prompt_0"], "model": {}})
    write_conversation(artifact.path / "prompt_0", random_conversation("prompt_1"))
    with pytest.raises(StrataError, match="holds another conversation"):
        read_captured(artifact)
