"""plot_heatmap.py as a user runs it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import plot_heatmap
from src.artifacts import Artifact, Plan, Provenance, create_artifact, verify
from src.config.plot_heatmap import PlotHeatmapConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.scenarios.scenario import Scenario
from src.scenarios.storage.run_folder import write_conversation, write_run, write_scenario
from src.stage.entry import check_overrides, compose, run_stage
from tests.fixtures.scenario_runs import N_HEADS, random_conversation

SCENARIO = {"name": "weather", "model": {"id": "tiny"}, "prompt": {"messages": [{"role": "user", "content": "hi"}]}}
RUNS = ("prompt_0_msg1of2", "prompt_0_msg2of2")


@pytest.fixture(scope="module")
def captured(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("heatmaps") / "artifacts"
    with create_artifact(
        Plan(root, "scenario_run", "weather", {}, name="weather"), Provenance({}, 0, "cpu", {}, None, "now")
    ) as draft:
        write_scenario(draft.path, Scenario.model_validate(SCENARIO))
        write_run(draft.path, {"name": "tiny"}, {})
        (draft.path / "prompt_0").mkdir()
        write_conversation(draft.path / "prompt_0", random_conversation(full=True))
        draft.summary = {"conversations": ["prompt_0"], "model": {"name": "tiny"}}
    return root.parent


@pytest.fixture
def project(captured, monkeypatch) -> Path:
    monkeypatch.chdir(captured)
    return captured


def run(*overrides: str) -> Artifact:
    words = ["threads=1", *overrides]
    check_overrides(words, PlotHeatmapConfig)
    return run_stage(plot_heatmap.run, PlotHeatmapConfig, "plot_heatmap", compose("plot_heatmap", words), words)


def test_each_layer_and_step_has_a_picture_and_its_values(project, capsys):
    artifact = run("conversations=[prompt_0_msg2of2]", "name=steps", "normalize=global")
    folder = artifact.path / "heatmaps" / RUNS[1] / "resid_post"
    names = [f"layer_{layer:02d}_step_{step:03d}" for layer in range(3) for step in range(3)]
    expected = {f"{name}.{ending}" for name in names for ending in ("npy", "png")} | {"contact_sheet.png"}
    assert {path.name for path in folder.iterdir()} == expected
    tokens = random_conversation(full=True).token_rows
    assert tokens is not None
    values = np.load(folder / "layer_02_step_000.npy", allow_pickle=False)
    np.testing.assert_array_equal(values, tokens.arrays["resid_post"][2].numpy())
    with Image.open(folder / "layer_02_step_000.png") as picture:
        assert picture.size[0] > 700
    assert not verify(artifact.path)
    assert [figure.title for figure in read_report(artifact.path).figures] == [f"Contact sheet of {RUNS[1]}"]
    assert "9 images of resid_post from weather" in capsys.readouterr().out
    run("conversations=[prompt_0_msg2of2]", "name=steps", "normalize=global")
    assert "reused" in capsys.readouterr().out


def colours_of(artifact: Artifact, name: str) -> set[tuple[int, ...]]:
    """Colours of the values of a picture of one row."""
    with Image.open(next(artifact.path.rglob(f"{name}.png"))) as picture:
        pixels = np.asarray(picture)
    left = int(np.flatnonzero((pixels[60] != 255).any(1))[0])
    return {tuple(int(part) for part in pixels[70, left + 5 + 126 * place]) for place in range(6)}


def test_one_scale_for_all_images_is_another_than_one_for_each(project):
    """Of each image on its own scale one value has the last colour; on one scale for all, of one image alone."""
    options = ("source=q", "view=steps", "steps=[1,2]", "conversations=[prompt_0_msg2of2]", "cmap=greys")
    extremes = {}
    for normalize in ("per_image", "global"):
        artifact = run(*options, f"normalize={normalize}", f"name={normalize}")
        names = [f"layer_{layer:02d}_step_{step:03d}" for layer in range(3) for step in (1, 2)]
        extremes[normalize] = sum((0, 0, 0) in colours_of(artifact, name) for name in names)
    assert extremes == {"per_image": 6, "global": 1}


def test_heads_of_attention_and_names_of_activation_lab(project):
    artifact = run("source=attn_weights", "per_head=true", "layers=[1]", "steps=[0]", "normalize=none", "name=heads")
    for name in RUNS:
        folder = artifact.path / "heatmaps" / name / "attention" / "layer_01"
        assert len(list(folder.glob("step_000_head_*.png"))) == N_HEADS
    assert artifact.meta.summary["n_images"] == 2 * N_HEADS


@pytest.mark.parametrize("view", ["generation", "messages"])
def test_rows_together_are_one_image_of_each_layer(project, view):
    positions = ["position=end"] if view == "messages" else []
    artifact = run("source=mlp_act", f"view={view}", "reduce=abs", "normalize=signed", f"name={view}", *positions)
    assert artifact.meta.summary["n_images"] == 2 * 3
    values = np.load(artifact.path / "heatmaps" / RUNS[1] / "mlp_act" / f"layer_00_{view}.npy")
    assert values.shape == (3, 8)
    assert (values < 0).any()  # of what was captured; the picture alone has absolute values


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source=soul"], "there is no source 'soul': choose from resid_pre"),
        (["conversations=[prompt_7]"], "there is no prompt_7; choose from prompt_0_msg1of2, prompt_0_msg2of2"),
        (["layers=[5]"], "no states of layer 5; choose from 0, 1, 2"),
        (["steps=[4]"], "no step 4"),
        (["view=messages", "position=mean"], "position=mean"),
        (["view=messages", "steps=[0]"], "steps=... means nothing"),
        (["messages=[0]"], "messages=... means nothing"),
        (["per_head=true"], "needs source=attention"),
        (["max_images=5"], "these are 18 images, and max_images=5"),
        (["cmap=jet"], "cmap"),
        (["run=other"], "run=other: neither a path nor one of"),
    ],
)
def test_a_wrong_choice_is_told_with_what_there_is(project, overrides, message):
    with pytest.raises(StrataError, match=message):
        run(*overrides)
