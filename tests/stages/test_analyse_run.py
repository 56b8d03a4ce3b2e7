"""analyse_run.py as a user runs it: all analyses of a tiny chat model, what can't be done, other weights, operators."""

import json
import math
import shutil
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

import analyse_run
import capture_scenario
import collect_activations
import train_transport_operators
from src.artifacts import Artifact, verify
from src.config.analyse_run import ANALYSES, AnalyseRunConfig
from src.config.capture_scenario import CaptureScenarioConfig
from src.config.stages import CollectConfig, TransportConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.scenarios.lenses.items import Items
from src.scenarios.storage.run_folder import read_captured
from src.stage.entry import compose, run_stage
from tests.fixtures.scenario_project import AWKWARD, save_chat_model, write_scenario_file
from tests.fixtures.tiny_project import write_text

PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)
TALK = [("user", "w20 w21"), ("assistant", "w22"), ("user", "w23 w24")]
MESSAGES = [{"role": role, "content": content} for role, content in TALK]


def stage(module, schema, name: str, *overrides: str) -> Artifact:
    words = ["threads=1", *overrides]
    return run_stage(module.run, schema, name, compose(name, words), words)


def capture(*overrides: str) -> Artifact:
    return stage(capture_scenario, CaptureScenarioConfig, "capture_scenario", *overrides)


def analyse(*overrides: str) -> Artifact:
    return stage(analyse_run, AnalyseRunConfig, "analyse_run", *overrides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny chat model, captured: all of it, little of it, with a template that rewrites; and its operators."""
    folder = tmp_path_factory.mktemp("analysed")
    save_chat_model(folder / "model")
    save_chat_model(folder / "awkward", template=AWKWARD)
    write_text(folder / "text.jsonl", 60, 20)
    write_scenario_file(folder / "whole.yaml", capture={"store_dtype": "float32"}, generation={"max_new_tokens": 6})
    write_scenario_file(folder / "each.yaml", prompt={"messages": MESSAGES, "run_at_each_message": True})
    awkward = {"id": "./awkward", "dtype": "float32"}
    write_scenario_file(folder / "awkward.yaml", model=awkward, prompt={"messages": MESSAGES})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("src.report.charts.draw_png", lambda _: PNG)
        capture("scenario=whole.yaml", "name=whole")
        capture("scenario=each.yaml", "name=each", "experiment_name=other")
        capture("scenario=awkward.yaml", "name=awkward", "experiment_name=other")
        little = "capture.mlp=false", "capture.attention_weights=false", "capture.layers=[0,2]"
        capture("scenario=whole.yaml", "name=little", "capture.preset=last_token", *little, "experiment_name=other")
        text = "model.path=model", "model.name=tiny", "dataset.dataset_name=text.jsonl", "dataset.dataset_split=null"
        stage(collect_activations, CollectConfig, "collect_activations", *text, "num_tokens=null", "layers=all")
        fitted = *text, "experiment.L=[0]", "experiment.k=[1,2]", "name=fitted"
        stage(train_transport_operators, TransportConfig, "train_transport_operators", *fitted)
    return folder


@pytest.fixture(autouse=True)
def project(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    # drawing takes longer than all else; test_lens_figures.py draws
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: PNG)
    return folder


@pytest.fixture(scope="module")
def whole(folder) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("src.report.charts.draw_png", lambda _: PNG)
        made = analyse("name=all")
    return Artifact(folder / made.path, made.meta)


def records(artifact: Artifact, stem: str) -> list[dict]:
    found = pq.read_table(artifact.path / f"{stem}.parquet").to_pylist()
    plain = json.loads((artifact.path / f"{stem}.json").read_text())
    assert len(plain) == len(found)
    return found


def steps_of(name: str) -> list:
    captured = read_captured(Artifact(Path("artifacts/scenario_run") / name, open_meta(name)))
    return captured.conversations[0].generations[0].steps


def open_meta(name: str):
    from src.artifacts import open_artifact

    return open_artifact(Path("artifacts/scenario_run") / name, "scenario_run").meta


def test_by_default_everything_is_looked_at_and_the_artifact_is_whole(whole, folder):
    assert whole.meta.summary["analyses"] == list(ANALYSES)
    assert whole.meta.summary["skipped"] == {}
    assert [parent.name for parent in whole.meta.parents] == ["whole"]
    assert verify(whole.path) == []
    report = read_report(whole.path)
    assert {"logit_lens_steps", "attribution_steps", "decomposition", "neurons", "cross_layer_cosine", "cka_steps"} <= {
        path.name.removesuffix(".vl.json") for path in (whole.path / "figures").glob("*.vl.json")
    }
    assert "6 steps and 5 messages (at answer), layers 0, 1, 2" in report.text


def test_the_last_layer_says_what_the_generation_says(whole):
    steps = steps_of("whole")
    last = [each for each in records(whole, "logit_lens_rows") if each["layer"] == 2 and each["kind"] == "steps"]
    assert [each["target_id"] for each in last] == [step.generated_token_id for step in steps]
    assert [each["target"].strip() for each in last] == [step.generated_token.strip() for step in steps]
    for each, step in zip(last, steps, strict=True):
        assert each["target_logprob"] == pytest.approx(step.logprob, abs=1e-4)
        assert each["entropy"] == pytest.approx(step.entropy, abs=1e-4)
        assert each["target_rank"] == 1
        assert each["kl_layer_final"] == each["kl_final_layer"] == 0
        assert each["top_ids"][:3] == [top.id for top in step.top_k[:3]]
    early = [each for each in records(whole, "logit_lens_rows") if each["layer"] == 0]
    assert min(each["kl_layer_final"] for each in early) > 1e-3


def test_the_file_of_the_logit_lens_has_activation_labs_shape(whole):
    file = json.loads((whole.path / "logit_lens.json").read_text())
    assert (file["model"], file["position"], file["top_k"]) == ("model", -1, 10)
    assert len(file["frames"]) == 6 * 3
    frame = file["frames"][0]
    assert {"step", "layer", "position", "top_k", "argmax_id", "argmax_logprob", "kl_from_final"} <= set(frame)
    assert set(frame["top_k"][0]) == {"id", "token", "logprob"}
    assert (frame["argmax_id"], frame["argmax_logprob"]) == (frame["top_k"][0]["id"], frame["top_k"][0]["logprob"])
    assert len(file["message_frames"]) == 5 * 3


def test_the_parts_of_a_logit_add_up_to_what_the_lens_says(whole):
    parts = records(whole, "attribution")
    sums = {
        step: (sum(part["logit"] for part in group), sum(part["lead"] for part in group))
        for step, group in ((step, list(group)) for step, group in groupby(parts, key=lambda part: part["step"]))
    }
    for total in records(whole, "attribution_sums"):
        assert sums[total["step"]] == pytest.approx((total["logit"], total["lead"]), rel=1e-4, abs=1e-4)
        assert total["lead"] >= 0  # greedy
    step = steps_of("whole")[0]
    first = records(whole, "attribution_sums")[0]
    assert first["lead"] == pytest.approx(step.top_k[0].logprob - step.top_k[1].logprob, abs=1e-4)
    shares = [
        part["share"] for part in records(whole, "decomposition") if (part["kind"], part["number"]) == ("steps", 0)
    ]
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_attention_goes_to_places_that_are_there_and_adds_up_to_1(whole):
    places = [each for each in records(whole, "attention_places") if (each["layer"], each["head"]) == (1, 0)]
    for _, group in groupby(places, key=lambda each: (each["kind"], each["number"])):
        group = list(group)
        assert sum(each["share"] for each in group) == pytest.approx(1, abs=1e-5)
        assert sum(each["even_share"] for each in group) == pytest.approx(1, abs=1e-5)
    # the first message sees itself alone: no place of a later one
    first = {each["place"] for each in places if (each["kind"], each["number"]) == ("messages", 0)}
    assert first == {"first token", "0 system", "header and reply"}
    heads = records(whole, "attention_heads")
    assert all(0 <= each["normalised_entropy"] <= 1 + 1e-6 for each in heads)
    assert {each["visible_keys"] for each in heads if each["kind"] == "steps"} == {
        step.seq_len for step in steps_of("whole")
    }


def test_chosen_neurons_steps_and_layers(capsys):
    found = analyse("analyses=[neurons]", "neurons=[[1,3],[2,0]]", "steps=[4,1]", "neuron_source=hidden_out")
    assert "run=" not in capsys.readouterr().out  # one scenario of this experiment: nothing to be said
    rows = records(found, "neurons")
    captured = read_captured(Artifact(Path("artifacts/scenario_run/whole"), open_meta("whole")))
    states = captured.conversations[0].generations[0].rows.get("resid_post")
    ours = {(each["layer"], each["neuron"], each["number"]): each["value"] for each in rows if each["kind"] == "steps"}
    assert set(ours) == {(1, 3, 4), (1, 3, 1), (2, 0, 4), (2, 0, 1)}
    assert ours[1, 3, 4] == float(states[1, 4, 3])
    few = analyse("analyses=[convergence,pca]", "layers=[0,2]", "position=end")
    assert {each["to_layer"] for each in records(few, "convergence")} == {2}
    assert not (few.path / "logit_lens.json").exists()


def test_what_was_not_captured_is_left_out_and_told_or_refused_where_it_was_named(capsys):
    found = analyse("run=little")
    assert set(found.meta.summary["skipped"]) == {"attribution", "decomposition", "neurons", "attention"}
    told = capsys.readouterr().err
    assert "neurons is left out: mlp_act was not captured" in told
    assert "capture.mlp=true" in told
    assert "a sum needs all of them: capture with capture.layers=all" in told
    lens = [each for each in records(found, "logit_lens_rows") if each["layer"] == 2]
    assert max(each["kl_layer_final"] for each in lens) == 0
    with pytest.raises(StrataError, match=r"analyses=attention: attention was not captured .*attention_weights=true"):
        analyse("run=little", "analyses=[pca,attention]")


def test_names_that_are_not_there_are_refused_with_those_that_are():
    for words, message in (
        (["conversation=nobody"], r"conversation=nobody: whole has no such run; choose from prompt_0, short"),
        (["steps=[9]"], r"steps: prompt_0 has steps 0 to 5, not 9"),
        (["layers=[7]"], r"layers: 7 was not captured \(there are 0, 1, 2\)"),
        (["position=mean"], r"position=mean .* \(there are end, answer\)"),
        (["analyses=[pca]", "source=resid"], r"^source: there is no source 'resid': .*mean resid_pre"),
        (["analyses=[cka]", "cka_sources=[attention]"], r"cka_sources=attention is no state of a token"),
        (["run=nothing"], r"run=nothing: neither a path nor one of the scenario_run"),
        (["experiment_name=nobody"], r"experiment_name=nobody .*choose one with run="),
        (["analyses=[logit]"], r"analyses: .*is not allowed"),
    ):
        with pytest.raises(StrataError, match=message):
            analyse(*words)


def test_a_run_at_a_message_is_chosen_by_its_name():
    found = analyse("run=each", "conversation=prompt_0_msg1of3", "analyses=[attention,logit_lens]")
    assert {each["place"] for each in records(found, "attention_places")} == {
        "first token",
        "0 user",
        "header and reply",
    }
    last = analyse("run=each", "conversation=prompt_0", "analyses=[attention]")
    assert last.meta.summary["run"] == "prompt_0_msg3of3"
    assert "3 user" not in {each["place"] for each in records(last, "attention_places")}


def test_a_template_that_rewrites_leaves_no_messages_to_tell_apart():
    found = analyse("run=awkward", "analyses=[attention]")
    assert {each["place"] for each in records(found, "attention_places")} == {"first token", "all else"}
    assert "can't be told apart by message" in read_report(found.path).text


def test_the_transport_lens_goes_through_operators_of_this_very_model():
    found = analyse("analyses=[logit_lens]", "lens=both")
    assert {parent.kind for parent in found.meta.parents} == {"scenario_run", "operators"}
    rows = [each for each in records(found, "logit_lens_rows") if each["kind"] == "steps"]
    assert {(each["lens"], each["layer"]) for each in rows} == {
        *(("logit", layer) for layer in range(3)),
        ("transport", 0),  # L0_k2 is there, L1_k1 is not
        ("transport", 2),
    }
    at_0 = {each["lens"]: each["entropy"] for each in rows if (each["layer"], each["number"]) == (0, 0)}
    assert at_0["logit"] != at_0["transport"]
    assert "the transport lens has the lower mean KL" in read_report(found.path).text
    with pytest.raises(StrataError, match=r"no operators of method=lasso to the last layer \(2\).*or use lens=logit"):
        analyse("lens=transport", "method=lasso")


def test_another_model_at_the_same_place_is_refused_and_a_moved_one_is_found(tmp_path):
    other = tmp_path / "other"
    shutil.copytree("model", other)
    module = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        next(module.parameters()).add_(0.1)
    module.save_pretrained(other)
    with pytest.raises(StrataError, match=r"differ in weights.*model_path=FOLDER"):
        analyse("analyses=[attribution]", f"model_path={other}")
    shutil.copytree("model", tmp_path / "moved")
    moved = analyse("analyses=[attribution]", f"model_path={tmp_path / 'moved'}")
    assert math.isfinite(moved.meta.summary["metrics"]["attribution/error"])
    with pytest.raises(StrataError, match=r"no such folder.*model_path=FOLDER"):
        analyse("analyses=[attribution]", "model_path=nowhere", "name=lost")


def test_a_repeated_look_is_reused(capsys):
    first = analyse("analyses=[cka]", "position=end")
    capsys.readouterr()
    assert analyse("analyses=[cka]", "position=end").path == first.path
    assert "reused" in capsys.readouterr().out
    assert {each["items"] for each in records(first, "cka")} == {"steps", "messages"}


def test_states_that_are_not_finite_leave_the_other_analyses_be(monkeypatch, capsys):
    get = Items.get

    def broken(items, source, layers=None):
        states = get(items, source, layers).clone()
        states[0, 0, 0] = math.nan
        return states

    monkeypatch.setattr(Items, "get", broken)
    found = analyse("conversation=short", "analyses=all", "name=broken")
    assert set(found.meta.summary["skipped"]) == {"cka", "pca"}
    assert {"neurons", "spectrum"} <= set(found.meta.summary["analyses"])
    assert verify(found.path) == []
    assert "pca is left out: the states hold NaN or inf" in capsys.readouterr().err
