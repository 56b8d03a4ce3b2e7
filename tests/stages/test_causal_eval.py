"""causal_eval.py as a user runs it, on a tiny model whose blocks 1 and 2 add nothing: what is transported is known."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import processors
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

import causal_eval
import collect_activations
import train_transport_operators
from src.artifacts import verify
from src.config.causal import CausalEvalConfig
from src.config.stages import CollectConfig, TransportConfig
from src.errors import NotApplicableError, StrataError
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_models import D_MODEL, tiny_model
from tests.fixtures.tiny_project import SPECIALS, make_project, tiny_tokenizer, write_text

STAGES = {
    "collect_activations": (collect_activations.run, CollectConfig),
    "train_transport_operators": (train_transport_operators.run, TransportConfig),
    "causal_eval": (causal_eval.run, CausalEvalConfig),
}
RIDGE = ("auto_tune=false", "regularization=1e-9", "cv_folds=2")


def text_of(name: str) -> list[str]:
    return [f"dataset.dataset_name={name}", "dataset.dataset_split=null"]


def run(stage: str, *overrides: str, dataset: str = "heldout.jsonl", artifacts: str = "artifacts"):
    words = ["model.path=model", "model.name=tiny", *text_of(dataset), "threads=1", f"artifacts_dir={artifacts}"]
    function, schema = STAGES[stage]
    words += ["bootstrap=100"] if stage == "causal_eval" else []
    return run_stage(function, schema, stage, compose(stage, [*words, *overrides]), [*words, *overrides])


def blocks_that_add_nothing(module: PreTrainedModel) -> None:
    for layer in (1, 2):
        module.model.layers[layer].self_attn.o_proj.weight.data.zero_()
        module.model.layers[layer].mlp.down_proj.weight.data.zero_()


def write_own_text(path: Path) -> None:
    """Documents that the model itself would go on with, so that edits do harm; 5 to 20 words."""
    model = AutoModelForCausalLM.from_pretrained(path.parent / "model").eval()
    ids = torch.tensor([[1, first] for first in range(10, 34)])
    with torch.no_grad():
        for _ in range(19):
            logits = model(ids).logits[:, -1]
            logits[:, : len(SPECIALS)] = -torch.inf
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    texts = [" ".join(f"w{token}" for token in row[1 : 6 + index % 16]) for index, row in enumerate(ids.tolist())]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A project with a store, operators of every pair by ridge and Procrustes, and text that nothing was fitted on."""
    folder = tmp_path_factory.mktemp("planted")
    make_project(folder, n_documents=60, change=blocks_that_add_nothing)
    write_own_text(folder / "heldout.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("collect_activations", "num_tokens=null", "storage_dtype=float32", dataset="text.jsonl")
        pairs = ("experiment.L=all", "experiment.k=all")
        run("train_transport_operators", *pairs, *RIDGE, "name=ridge", dataset="text.jsonl")
        turned = ("cv_folds=2", "name=turned", "method=procrustes")
        run("train_transport_operators", *pairs, *turned, dataset="text.jsonl")
    return folder


@pytest.fixture
def project(folder, monkeypatch) -> Path:
    """Pictures are not drawn: that would take most of the time."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    return folder


@pytest.fixture
def fresh(project, tmp_path) -> str:
    """An artifacts folder of a test's own, with the store and the operators that are named `ridge`."""
    (tmp_path / "artifacts" / "operators").mkdir(parents=True)
    (tmp_path / "artifacts" / "activations").symlink_to(project / "artifacts" / "activations")
    (tmp_path / "artifacts" / "operators" / "ridge").symlink_to(project / "artifacts" / "operators" / "ridge")
    return str(tmp_path / "artifacts")


def records(made, stem: str = "conditions") -> list[dict]:
    return json.loads((made.path / f"{stem}.json").read_text())


def by_name(made) -> dict[tuple, dict]:
    return {(it["L"], it["k"], it["intervention"], it["operator"], it["positions"]): it for it in records(made)}


@pytest.fixture(scope="module")
def planted(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        js = "causal_eval.js=[[3],[2,6],[5,40]]"
        return run("causal_eval", "operators=ridge", "causal_eval.L=0", "causal_eval.k=[1,2]", js)


def test_what_adds_nothing_is_transported_without_loss(project, planted):
    found = by_name(planted)
    assert {key[2] for key in found} == {"transport", "rotated", "identity", "null", "mean", "resample", "zero"}
    assert {key[4] for key in found} == {"3", "2,6", "5", "pooled"}
    for (_, _, name, _, _), record in found.items():
        if name in ("transport", "identity"):
            assert abs(record["nll_change_affected"]) < 2e-5
            assert record["kl_affected"] < 1e-5
            assert record["agreement_affected"] == 1
            assert record["recovered_vs_zero"] == pytest.approx(1, abs=1e-3)
        else:
            assert record["kl_affected"] > 1e-3
        assert record["max_deviation"] == 0
        assert record["max_change_before"] < 1e-5
        assert record["tokens_edited"] > 0
        assert record["nll_change_low"] <= record["nll_change"] <= record["nll_change_high"]
        assert record["operators"] == ("ridge" if name in ("transport", "rotated", "null") else None)
    zero, pooled = found[0, 1, "zero", None, "3"], found[0, 1, "zero", None, "pooled"]
    assert zero["recovered_vs_mean"] is not None
    assert "recovered_vs_zero" not in zero or zero["recovered_vs_zero"] is None
    assert pooled["n_affected"] == sum(found[0, 1, "zero", None, js]["n_affected"] for js in ("3", "2,6", "5"))


def test_positions_that_no_sequence_reaches_are_named(project, planted, capsys):
    run("causal_eval", "operators=ridge", "causal_eval.L=0", "causal_eval.k=[1,2]", "causal_eval.js=[[3],[2,6],[5,40]]")
    caught = capsys.readouterr()
    assert "positions 40 are not edited: no sequence has a token there that may be edited, and another" in caught.err
    assert "the longest has 21 tokens" in caught.err
    with pytest.raises(StrataError, match=r"no sequence of 'heldout.jsonl' is left .*: 24 have .* earlier positions"):
        run("causal_eval", "operators=ridge", "causal_eval.L=0", "causal_eval.js=[[40]]")
    # position 0 is BOS, which operators have not seen
    with pytest.raises(StrataError, match=r"causal_eval.js: of positions 0 none is left: .*edit_bos=true"):
        run("causal_eval", "operators=ridge", "causal_eval.L=0", "causal_eval.js=[[0]]")
    made = run("causal_eval", "operators=ridge", "causal_eval.L=0", "causal_eval.js=[[0]]", "edit_bos=true")
    assert {record["tokens_edited"] for record in records(made)} == {24}


def test_token_scores_are_those_of_the_model_and_give_the_numbers_of_the_table(project, planted):
    clean = pq.read_table(planted.path / "clean_tokens.parquet").to_pandas()
    scores = pq.read_table(planted.path / "token_scores.parquet").to_pandas()
    model = AutoModelForCausalLM.from_pretrained("model").eval()
    for _, rows in clean.groupby("sequence"):
        rows = rows.sort_values("position")
        ids = torch.tensor(rows.token_id.tolist())
        with torch.no_grad():
            expected = cross_entropy(model(ids[None]).logits[0, :-1], ids[1:], reduction="none")
        torch.testing.assert_close(torch.tensor(rows.clean_nll.tolist()[:-1]), expected, atol=2e-5, rtol=1e-4)
        assert math.isnan(rows.clean_nll.iloc[-1])
    assert (clean[clean.position == 0].keep == 1).all()
    record = by_name(planted)[0, 2, "resample", None, "2,6"]
    (condition,) = record["conditions"]
    own = scores[scores.condition == condition].merge(clean, on=["sequence", "position"])
    assert own.position.min() == 2
    assert set(own[own.edited].position) == {2, 6}
    assert (own.nll - own.clean_nll).mean() == pytest.approx(record["nll_change_affected"], rel=1e-5)
    assert own.kl.mean() == pytest.approx(record["kl_affected"], rel=1e-5)
    assert own.agrees.mean() == pytest.approx(record["agreement_affected"])
    assert len(own) == record["n_affected"]
    n_all = clean.clean_nll.notna().sum()
    assert clean.clean_nll.mean() == pytest.approx(record["nll_clean"], rel=1e-5)
    assert (own.nll - own.clean_nll).sum() / n_all == pytest.approx(record["nll_change"], rel=1e-5)
    distances = [it for it in records(planted, "by_distance") if it["intervention"] == "resample" and it["k"] == 2]
    first = next(it for it in distances if it["positions"] == "2,6" and it["distance_from"] == 0)
    assert first["nll_change"] == pytest.approx((own.nll - own.clean_nll)[own.position == 2].mean(), rel=1e-5)


def test_a_sweep_gives_each_pair_its_own_numbers_from_shared_conditions(project):
    words = ("operators=ridge", "causal_eval.js=[[3]]", "batch_size=7")
    swept = run("causal_eval", *words, "causal_eval.L=all", "causal_eval.k=all")
    assert {(it["L"], it["k"]) for it in records(swept)} == {(0, 1), (0, 2), (1, 1)}
    single = run("causal_eval", *words, "causal_eval.L=0", "causal_eval.k=2")
    ours, expected = by_name(swept), by_name(single)
    for key, record in expected.items():
        for field in ("nll_change_affected", "kl_affected_high", "nll_clean"):
            assert ours[key][field] == pytest.approx(record[field], rel=1e-4, abs=1e-5)
    # zero ablation of layer 2 is one condition, whatever the source
    assert ours[0, 2, "zero", None, "3"]["conditions"] == ours[1, 1, "zero", None, "3"]["conditions"]
    assert ours[0, 2, "identity", None, "3"]["conditions"] != ours[1, 1, "identity", None, "3"]["conditions"]
    report = read_report(swept.path)
    names = {path.stem for path in (swept.path / "figures").glob("*.png")}
    assert names == {"change", "distance", "recovered_transport_vs_zero", "recovered_transport_vs_mean"}
    assert "that nothing was fitted on. Every edit happened" in report.text
    assert {it["nll_change_affected"] for it in records(swept) if it["intervention"] == "transport"} == {0.0}
    assert report.text.startswith("Operators' predictions in place of activations cost 0 (all 3) nats per affected ")
    assert "of mean ablation's cost." in report.text
    assert verify(swept.path) == []
    assert {parent.kind for parent in swept.meta.parents} == {"sequences", "operators"}


def test_several_methods_stand_side_by_side_when_they_are_asked_for(project):
    words = ("causal_eval.L=0", "causal_eval.k=1", "causal_eval.js=[[3]]")
    with pytest.raises(StrataError, match=r"operators of different settings .*"):
        run("causal_eval", *words)
    with pytest.raises(StrataError, match=r"no operators of method lasso were fitted on this store"):
        run("causal_eval", *words, "method=[ridge,lasso]")
    made = run("causal_eval", *words, "method=[ridge,procrustes]")
    found = by_name(made)
    assert (0, 1, "transport", "ridge", "3") in found
    assert found[0, 1, "transport", "procrustes", "3"]["operators"] == "turned"
    assert (0, 1, "zero", None, "3") in found
    assert "transport (ridge)" in {row[0] for row in read_report(made.path).tables[0].rows}
    named = run("causal_eval", *words, "operators=[ridge,turned]", "interventions=[transport,zero]")
    assert {it["intervention"] for it in records(named)} == {"transport", "zero"}
    with pytest.raises(StrataError, match=r"turned was fitted with method=procrustes .*leave out method"):
        run("causal_eval", *words, "operators=turned", "method=ridge")


def test_named_operators_of_another_store_are_not_dropped_in_silence(fresh, tmp_path):
    write_text(tmp_path / "other.jsonl", 30, 20, seed=1)
    other = str(tmp_path / "other.jsonl")
    # `fresh` shares its store's folder with other tests: a second store goes into a folder of its own
    stores = Path(fresh) / "activations"
    shared = stores.resolve()
    stores.unlink()
    stores.mkdir()
    for store in shared.iterdir():
        (stores / store.name).symlink_to(store)
    run("collect_activations", "num_tokens=null", dataset=other, artifacts=fresh)
    pair = ("experiment.L=0", "experiment.k=1", "cv_folds=2", "method=procrustes", "name=elsewhere")
    run("train_transport_operators", *pair, dataset=other, artifacts=fresh)
    words = ("causal_eval.L=0", "causal_eval.k=1", "operators=[ridge,elsewhere]", "interventions=[transport]")
    with pytest.raises(StrataError, match=r"elsewhere was fitted on .*other.jsonl.*, not on tiny-text.jsonl"):
        run("causal_eval", *words, dataset="text.jsonl", artifacts=fresh)


def test_operators_of_one_method_are_told_apart_by_what_differs(fresh):
    pair = ("experiment.L=0", "experiment.k=1")
    run(
        "train_transport_operators",
        *pair,
        "normalize=true",
        *RIDGE,
        "name=scaled",
        dataset="text.jsonl",
        artifacts=fresh,
    )
    words = ("causal_eval.L=0", "causal_eval.k=1", "causal_eval.js=[[3]]", "interventions=[transport]")
    with pytest.raises(StrataError, match=r"operators of different settings .*"):
        run("causal_eval", *words, "method=[ridge]", artifacts=fresh)
    made = run("causal_eval", *words, "operators=[ridge,scaled]", artifacts=fresh)
    assert {it["operator"] for it in records(made)} == {"ridge, fit.normalize=false", "ridge, fit.normalize=true"}
    assert all(it.get("recovered_vs_zero") is None for it in records(made))


def test_baselines_need_no_operator(project, tmp_path):
    words = ("eval_mode=baselines", "causal_eval.js=[[3]]")
    bare = str(tmp_path / "artifacts")
    made = run("causal_eval", *words, "interventions=[zero,identity]", artifacts=bare)
    assert {(it["L"], it["k"]) for it in records(made)} == {(0, 1), (0, 2), (1, 1)}
    assert all(abs(it["nll_change"]) < 1e-5 for it in records(made) if it["intervention"] == "identity")
    with pytest.raises(StrataError, match=r"position_offsets=all means those of the operators"):
        run("causal_eval", *words, "causal_eval.position_offsets=all", "interventions=[zero]", artifacts=bare)
    with pytest.raises(StrataError, match=r"no operators that fit .*interventions=\[identity,resample,zero\]"):
        run("causal_eval", *words, artifacts=bare)
    with pytest.raises(StrataError, match=r"layer 2 is out of range|leads to layer 3"):
        run("causal_eval", *words, "causal_eval.L=2", "causal_eval.k=1", "interventions=[zero]", artifacts=bare)
    known = run("causal_eval", *words, "causal_eval.L=0")
    assert {it["intervention"] for it in records(known)} == {"identity", "mean", "resample", "zero"}
    one = ("causal_eval.L=0", "causal_eval.k=1", "hook=mlp_out")
    mlp = run("causal_eval", *words, *one, "interventions=[zero]", artifacts=bare)
    (record,) = records(mlp)
    assert record["conditions"] == ["zero mlp_out.1 at 3"]
    assert abs(record["nll_change"]) < 1e-5  # its MLP adds nothing anyway


@pytest.mark.parametrize("max_length", [256, 8])
def test_nothing_is_scored_that_was_fitted_on(project, capsys, max_length):
    """The text of the store: its test share is left, also where sequences are cut off elsewhere."""
    words = ("operators=ridge", "causal_eval.L=0", "causal_eval.js=all", f"causal_eval.max_length={max_length}")
    made = run("causal_eval", *words, dataset="text.jsonl")
    out = capsys.readouterr().out
    assert "are in the train or val share of" in out
    scored = pq.read_table(made.path / "clean_tokens.parquet").to_pandas()
    fresh = {tuple(rows.sort_values("position").token_id) for _, rows in scored.groupby("sequence")}
    sequences = pq.read_table(next(Path("artifacts/sequences").glob("text*/sequences.parquet"))).to_pylist()
    assert 5 <= len(fresh) <= 0.25 * 60
    store = next(iter(Path("artifacts/activations").iterdir()))
    from src.activations.store import open_store
    from src.config.stages import SplitConfig
    from src.stage.stores import split_store

    opened = open_store(store)
    split = split_store(opened, SplitConfig(train=0.6, val=0.2, test=0.2), 2, seed=42)
    ids = [list(part) for it in opened for part in _sequences(it)]
    fitted = {tuple(row[:max_length]) for row, group in zip(ids, split.groups, strict=True) if group != split.test}
    test = {tuple(row[:max_length]) for row, group in zip(ids, split.groups, strict=True) if group == split.test}
    assert not fresh & fitted
    assert fresh <= test
    assert len(sequences) >= len(fresh)


@pytest.mark.parametrize("max_length", [8, 16, 32])
def test_what_was_fitted_on_is_known_where_sequences_end_with_eos_elsewhere(tmp_path, monkeypatch, max_length):
    make_project(tmp_path, n_documents=40, longest=40)
    tokenizer = tiny_tokenizer()
    ends = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)])
    tokenizer.backend_tokenizer.post_processor = ends
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    run("collect_activations", "num_tokens=null", "max_length=16", dataset="text.jsonl")
    run("train_transport_operators", "experiment.L=0", "experiment.k=1", *RIDGE, dataset="text.jsonl")
    words = ("causal_eval.L=0", "interventions=[zero]", f"causal_eval.max_length={max_length}")
    made = run("causal_eval", *words, dataset="text.jsonl")
    documents = pq.read_table(made.path / "clean_tokens.parquet", columns=["sequence"]).column(0).unique()
    assert 1 <= len(documents) <= 0.2 * 40


def _sequences(part) -> list:
    return [part.token_ids[a:b].tolist() for a, b in pairwise(part.sequence_start.tolist())]


def test_resampling_needs_a_second_sequence(project):
    words = ("operators=ridge", "causal_eval.L=0", "causal_eval.skip_initial_n_samples_from_dataset=23")
    with pytest.raises(StrataError, match=r"a single sequence of 'heldout.jsonl' is left .*without resample"):
        run("causal_eval", *words)
    assert {it["n_sequences"] for it in records(run("causal_eval", *words, "interventions=[zero]"))} == {1}


def test_max_samples_counts_those_that_are_left(project):
    words = ("operators=ridge", "causal_eval.L=0", "causal_eval=test", "causal_eval.js=[[3]]")
    made = run("causal_eval", *words, dataset="text.jsonl")
    assert made.meta.identity["positions"] == [[3]]
    assert {it["n_sequences"] for it in records(made)} == {5}
    longer = run(
        "causal_eval", *words, "causal_eval.min_length=12", "causal_eval.skip_initial_n_samples_from_dataset=2"
    )
    clean = pq.read_table(longer.path / "clean_tokens.parquet").to_pandas()
    assert clean.groupby("sequence").size().min() >= 12


def test_the_same_command_reuses_and_what_decides_numbers_counts(project, planted, capsys):
    words = ("operators=ridge", "causal_eval.L=0", "causal_eval.k=[1,2]", "causal_eval.js=[[6,2],[3],[3],[5,40]]")
    capsys.readouterr()
    again = run("causal_eval", *words, "causal_eval.js=[[3],[2,6],[5,40]]", "rows_per_pass=3")
    assert again.path == planted.path
    out = capsys.readouterr().out
    assert f"{planted.path} is already there and fits: reused" in out
    assert "What interventions do to predictions" in out
    fewer = (*words[:2], "causal_eval.k=1", "causal_eval.js=[[3]]", "interventions=[zero]")
    changes = ((), ("seed=1",), ("batch_size=5",), ("edit_bos=true",))
    assert len({run("causal_eval", *fewer, *change).path for change in changes}) == 4


def test_only_the_component_along_directions_is_replaced(project, tmp_path):
    draws = torch.Generator().manual_seed(0)
    everything = torch.randn(D_MODEL, D_MODEL, generator=draws)
    files = {"all": everything, "one": everything[:1], "wide": torch.eye(D_MODEL + 1), "zero": everything[:2] * 0}
    for name, directions in files.items():
        save_file({"directions": directions}, tmp_path / f"{name}.safetensors")
    pair = ("causal_eval.L=0", "causal_eval.k=1")
    words = ("operators=ridge", *pair, "causal_eval.js=[[3]]", "interventions=[zero,resample]")
    whole, along_all, along_one = (
        by_name(run("causal_eval", *words, *more))
        for more in ((), *((f"directions={tmp_path}/{name}.safetensors",) for name in ("all", "one")))
    )
    for key, record in whole.items():
        assert along_all[key]["nll_change"] == pytest.approx(record["nll_change"], abs=1e-4)
        assert abs(along_one[key]["nll_change"] - record["nll_change"]) > 1e-3
    save_file({"resid_post.1": everything[:1]}, tmp_path / "own.safetensors")
    save_file({"resid_post.2": everything[:1]}, tmp_path / "other.safetensors")
    assert by_name(run("causal_eval", *words, f"directions={tmp_path}/own.safetensors")) == along_one
    for name, message in (
        ("other", r"other.safetensors holds resid_post.2, and resid_post.1 is edited: give .* for each hook point"),
        ("wide", r"directions are 17 wide, and the model's residual stream 16"),
        ("zero", r"a direction is zero"),
        ("none", r"none.safetensors can't be read .*give a safetensors file with a tensor `directions`"),
    ):
        with pytest.raises(StrataError, match=message):
            run("causal_eval", *words, f"directions={tmp_path}/{name}.safetensors")


def test_operators_of_another_model_are_refused(project):
    path = Path("model/model.safetensors")
    content = path.read_bytes()
    try:
        tiny_model("llama", seed=5).save_pretrained("model")
        with pytest.raises(StrataError, match=r"holds activations of another model than tiny is now: .*activations="):
            run("causal_eval", "operators=ridge", "causal_eval.L=0", "causal_eval.js=[[3]]")
    finally:
        path.write_bytes(content)
    with pytest.raises(StrataError, match=r"in float32, and it runs in bfloat16 now: set model.dtype=float32"):
        run("causal_eval", "operators=ridge", "causal_eval.L=0", "causal_eval.js=[[3]]", "model.dtype=bfloat16")


def test_what_is_missing_comes_with_the_command_that_makes_it(project, tmp_path):
    with pytest.raises(
        StrataError, match=r"no operators that fit .*train_transport_operators.py \(model=tiny method=lasso\)"
    ):
        run("causal_eval", "method=lasso")
    with pytest.raises(StrataError, match=r"L=2, k=1 leads to layer 3, and the last one is 2"):
        run("causal_eval", "method=ridge", "causal_eval.L=2", "causal_eval.k=1")
    with pytest.raises(StrataError, match=r"no sequence.*only 24 documents and all of them were skipped"):
        run("causal_eval", "method=ridge", "causal_eval.L=0", "causal_eval.skip_initial_n_samples_from_dataset=100")


def test_a_model_that_predicts_no_tokens_is_told_apart(project, tmp_path, monkeypatch):
    make_project(tmp_path)
    tiny_model("bert").save_pretrained(tmp_path / "model")
    (tmp_path / "heldout.jsonl").write_text((project / "heldout.jsonl").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotApplicableError, match="has no vocabulary head, so it predicts no tokens"):
        run("causal_eval", "eval_mode=baselines", "causal_eval.L=0", "interventions=[zero]")


def test_predictions_from_another_token_are_written_where_both_may_be(fresh):
    pair = ("experiment.L=0", "experiment.k=1")
    run(
        "train_transport_operators",
        *pair,
        "experiment.position_offset=[0,1]",
        *RIDGE,
        "name=shift",
        dataset="text.jsonl",
        artifacts=fresh,
    )
    words = ("operators=shift", "causal_eval.L=all", "causal_eval.k=all", "interventions=[transport,identity,zero]")
    made = run("causal_eval", *words, "causal_eval.position_offsets=all", artifacts=fresh)
    found = {(it["offset"], it["intervention"]): it for it in records(made)}
    assert set(found) == {(offset, name) for offset in (0, 1) for name in ("transport", "identity", "zero")}
    n_tokens = pq.read_metadata(made.path / "clean_tokens.parquet").num_rows
    assert found[0, "zero"]["tokens_edited"] == n_tokens - 24
    assert found[1, "zero"]["tokens_edited"] == found[0, "zero"]["tokens_edited"] - 24
    assert found[0, "transport"]["kl_affected"] < 1e-5 < found[1, "transport"]["kl_affected"]
    assert found[1, "identity"]["kl_affected"] > 1e-3
    assert {it["offset"] for it in records(run("causal_eval", *words, artifacts=fresh))} == {0}
    with pytest.raises(StrataError, match=r"causal_eval.js: of positions 1 none is left: .*and whose source may be"):
        run("causal_eval", *words, "causal_eval.position_offsets=1", "causal_eval.js=[[1]]", artifacts=fresh)
    with pytest.raises(StrataError, match=r"causal_eval.position_offsets: no operator has offset 3 \(there: 0, 1\)"):
        run("causal_eval", *words, "causal_eval.position_offsets=3", artifacts=fresh)


def test_operators_of_other_rows_have_no_mean_in_common(fresh):
    pair = ("experiment.L=0", "experiment.k=1", *RIDGE, "seed=7", "name=other_split")
    run("train_transport_operators", *pair, dataset="text.jsonl", artifacts=fresh)
    words = ("causal_eval.L=0", "causal_eval.k=1", "causal_eval.js=[[3]]", "operators=[ridge,other_split]")
    with pytest.raises(StrataError, match=r"other_split, ridge were fitted on other rows .*a run of its own"):
        run("causal_eval", *words, artifacts=fresh)
