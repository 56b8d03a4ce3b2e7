"""eval.py run_features=true on a store whose features are planted: no model is needed."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import eval as eval_stage
import train_transport_operators
from src.artifacts import Plan, open_meta, verify
from src.artifacts.folder import seal
from src.config.stages import EvalConfig, TransportConfig
from src.errors import StrataError
from src.hook_points import HookPoint
from src.stage.entry import compose, run_stage
from tests.fixtures import stores
from tests.fixtures.planted_transport import mixing
from tests.fixtures.saes import D, F, planted_gemma_scope, planted_rows, sparse_latents, write_gemma_scope

LENGTH, N_DOCUMENTS, CARRIED = 6, 400, 6
STAGES: dict = {
    "train_transport_operators": (train_transport_operators.run, TransportConfig),
    "eval": (eval_stage.run, EvalConfig),
}


def run(stage, artifacts, *overrides):
    words = [f"artifacts_dir={artifacts}", "threads=1", "activations=made", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


def evaluate(root: Path, *overrides):
    place = f'sae.path="{root}/gemma-scope-2b-pt-res/layer_{{layer}}"'
    return run("eval", root / "artifacts", "bootstrap=100", "run_features=true", place, *overrides)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Features 0 to 11 of layer 1 are linear in layer 0; of layer 2, 0 to 5 are, and 6 to 11 are drawn anew."""
    root = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    n = N_DOCUMENTS * LENGTH
    latents = sparse_latents(rng, n)
    later = np.concatenate([latents[:, :CARRIED], sparse_latents(rng, n)[:, CARRIED:]], 1)
    saes = {layer: planted_gemma_scope(seed=layer)[0] for layer in (1, 2)}
    rows = {0: latents @ mixing(rng, D), 1: planted_rows(saes[1], latents), 2: planted_rows(saes[2], later)}
    for layer, weights in saes.items():
        write_gemma_scope(root / "gemma-scope-2b-pt-res" / f"layer_{layer}", weights)
    config = compose("eval", [])
    known = {"model": dict(config.model), "dataset": dict(config.dataset)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "PROVENANCE", replace(stores.PROVENANCE, config=known))
        activations = {HookPoint("resid_post", layer): x.astype(np.float32) for layer, x in rows.items()}
        stores.make_store(root / "artifacts", activations, [LENGTH] * N_DOCUMENTS, sequences_per_part=50)
    (store,) = (root / "artifacts" / "activations").iterdir()
    store.rename(store.with_name("made")) if store.name != "made" else None
    run("train_transport_operators", root / "artifacts", "experiment.L=all", "experiment.k=all", "cv_folds=3")
    return root


@pytest.fixture(scope="module")
def evaluation(root):
    return evaluate(root)


@pytest.fixture
def without_figures(monkeypatch):
    """Drawing is most of the time of a small evaluation."""
    monkeypatch.setattr("src.report.assessment.Assessment.figures", [])


def table_of(evaluation, title):
    report = json.loads((evaluation.path / "report.json").read_text())
    return next(table for table in report["tables"] if table["title"] == title)


def test_planted_features_are_found_transported_or_synthesised(evaluation):
    assert not verify(evaluation.path)
    records = pq.read_table(evaluation.path / "features.parquet").to_pylist()
    by_place = {(record["L"], record["k"], record["feature"]): record for record in records}
    assert len(by_place) == 3 * F
    for feature in range(D):
        record = by_place[0, 1, feature]
        assert record["latent_r2"] > 0.999
        assert record["f1"] == record["precision"] == record["recall"] == 1
        assert record["all_r2_lat"] > 0.999
        for leap, layer in ((2, 0), (1, 1)):
            later = by_place[layer, leap, feature]
            if feature < CARRIED:
                assert later["latent_r2"] > 0.999
                assert later["f1"] == 1
            else:
                assert later["latent_r2_low"] < 0.02
                assert later["all_r2_lat"] < 0.02
    assert all(math.isnan(by_place[0, 1, feature]["latent_r2"]) for feature in range(D, F))  # they never fire
    origin = table_of(evaluation, "Transported or synthesised")
    of_last = [(row[1], int(row[2].removeprefix("#"))) for row in origin["rows"] if row[0] == 2]
    assert [kind for kind, _ in of_last] == ["transported"] * 3 + ["synthesised"] * 3
    assert {feature < CARRIED for kind, feature in of_last if kind == "transported"} == {True}
    assert {feature < CARRIED for kind, feature in of_last if kind == "synthesised"} == {False}


def test_the_json_has_the_reference_s_shape_and_the_numbers_of_the_parquet(evaluation):
    found = json.loads((evaluation.path / "features.json").read_text())
    assert set(found) == {"calibration_summary", "layer_0", "layer_1"}
    assert set(found["layer_0"]) == {"k_1", "k_2"}
    features = found["layer_0"]["k_1"]["j==i"]
    assert list(features) == [str(feature) for feature in range(F)]
    records = pq.read_table(evaluation.path / "features.parquet").to_pylist()
    told = next(record for record in records if (record["L"], record["k"], record["feature"]) == (0, 1, 3))
    for name in ("r2_lat", "mse_lat", "r_pearson", "calibration", "rms_ratio", "mean_ratio", "log_mse_ratio"):
        assert features["3"][name] == told[f"active_{name}"]
    residual = json.loads((evaluation.path / "residual.json").read_text())
    operator = next(
        record for record in residual if (record["L"], record["k"], record["predictor"]) == (0, 1, "operator")
    )
    assert (features["3"]["r2_res"], features["3"]["mse_res"]) == (operator["r2_uniform"], operator["mse"])
    assert features["3"]["total_samples"] == operator["n_rows"] == told["n_rows"]
    assert features["3"]["calib_interpretation"]["rms_assessment"] == "excellent"
    assert features[str(F - 1)]["feature_never_activated"] is True
    assert features[str(F - 1)]["r2_lat"] is None
    assert features[str(F - 1)]["calib_interpretation"] == {}
    activity = found["calibration_summary"]["activation_summary"]
    assert (activity["total_features"], activity["activated_features"]) == (3 * F, 3 * D)
    assert len(found["calibration_summary"]["rms_ratios"]) == 3 * D


@pytest.mark.usefixtures("without_figures")
def test_what_decides_the_numbers_decides_the_name_and_nothing_else_does(root, evaluation, capsys):
    assert evaluate(root).path == evaluation.path
    assert "reused" in capsys.readouterr().out
    ids = root / "ids"
    ids.mkdir()
    for layer in (1, 2):
        (ids / f"feature_scores_{layer}.json").write_text(json.dumps({"high_quality_feature_ids": [5, 2, 9]}))
    lists = evaluate(root, f"features.feature_ids_dir={ids}")
    same = evaluate(root, "features.feature_ids=[5,2,9]")
    shorter = evaluate(root, "features.feature_ids=[5,2,9]", "features.max_features=2")
    unfiltered = evaluate(root, "features.feature_ids=[5,2,9]", "features.filter_inactive_features=false")
    assert lists.path == same.path
    assert len({made.path for made in (evaluation, lists, shorter, unfiltered)}) == 4
    assert pq.read_table(lists.path / "features.parquet")["feature"].to_pylist() == [5, 2, 9] * 3
    assert pq.read_table(shorter.path / "features.parquet")["feature"].to_pylist() == [5, 2] * 3
    assert f"Features: {ids}/feature_scores_1.json" in table_of(lists, "Features through the operators")["caption"]
    record = json.loads((unfiltered.path / "features.json").read_text())["layer_1"]["k_1"]["j==i"]["5"]
    told = pq.read_table(unfiltered.path / "features.parquet").to_pylist()
    assert record["r2_lat"] == next(r for r in told if (r["L"], r["feature"]) == (1, 5))["all_r2_lat"]
    weights = planted_gemma_scope(seed=1)[0]
    weights["threshold"] = weights["threshold"] + np.float32(0.1)
    write_gemma_scope(root / "other" / "gemma-scope-2b-pt-res" / "layer_1", weights)
    other = evaluate(root, "eval.Ls=0", "eval.ks=1", f'sae.path="{root}/other/gemma-scope-2b-pt-res/layer_{{layer}}"')
    alike = evaluate(root, "eval.Ls=0", "eval.ks=1")
    assert other.path != alike.path


@pytest.mark.usefixtures("without_figures")
def test_a_plain_evaluation_stays_what_it_was(root, evaluation):
    plain = run("eval", root / "artifacts", "bootstrap=100")
    assert set(plain.meta.identity) == {"pairs", "bootstrap", "seed"}
    assert not (plain.path / "features.json").exists()
    assert (plain.path / "residual.json").read_bytes() == (evaluation.path / "residual.json").read_bytes()


@pytest.mark.usefixtures("without_figures")
def test_targets_without_an_sae_are_passed_over_and_one_sae_is_enough(root, capsys):
    one = evaluate(root, f"sae.path={root}/gemma-scope-2b-pt-res/layer_2", "features.feature_ids=[0,7]")
    records = pq.read_table(one.path / "features.parquet").to_pylist()
    assert {(record["L"], record["k"]) for record in records} == {(0, 2), (1, 1)}
    assert "no SAE for resid_post.1" in capsys.readouterr().out
    assert len(json.loads((one.path / "residual.json").read_text())) == 3 * 4


@pytest.mark.usefixtures("without_figures")
def test_the_cards_of_an_sae_are_linked(root, evaluation):
    weights = evaluation.meta.identity["features"]["saes"]["resid_post.2"]["sae"]["weights"]
    meta = json.loads((evaluation.path / "meta.json").read_text())
    # the later one has a card of one feature only
    for name, features in (("mine", [0, 1, 2, 7]), ("later", [0])):
        folder = root / "artifacts" / "explanations" / name
        folder.mkdir(parents=True)
        (folder / "feature_cards_2.html").write_text("cards")
        table = pa.table({"layer": [1, *[2] * len(features)], "feature": [6, *features]})
        pq.write_table(table, folder / "features.parquet")
        plan = Plan(root / "artifacts", "explanations", name, {"saes": [weights]}, [], name)
        seal(folder, plan, replace(stores.PROVENANCE, config=meta["config"]), {})
    linked = evaluate(root, "overwrite=true", "features.feature_ids=[0,1,2,6,7,8]")
    cells = [row[2] for row in table_of(linked, "Transported or synthesised")["rows"] if row[0] == 2]
    assert {"text": "#7", "href": "explanations/mine/feature_cards_2.html#feature-7"} in cells
    # no link to a card that is not there
    assert "#6" in cells
    assert open_meta(linked.path).kind == "evaluation"


@pytest.mark.usefixtures("without_figures")
def test_the_named_scores_come_before_later_ones(root, evaluation):
    """What run_pipeline.py has scored is what its evaluation is of, whatever was scored beside it."""
    assert "feature_scores" in EvalConfig.model_fields  # the pipeline hands artifacts on under the name of their kind
    weights = evaluation.meta.identity["features"]["saes"]["resid_post.2"]["sae"]["weights"]
    meta = json.loads((evaluation.path / "meta.json").read_text())
    folders = []
    for name, ids in (("first", [4, 2]), ("later", [3])):
        folders.append(root / "artifacts" / "feature_scores" / name)
        folders[-1].mkdir(parents=True)
        (folders[-1] / "feature_scores_2.json").write_text(json.dumps({"high_quality_feature_ids": ids}))
        plan = Plan(root / "artifacts", "feature_scores", name, {"saes": [weights]}, [], name)
        seal(folders[-1], plan, replace(stores.PROVENANCE, config=meta["config"]), {})
    pair = ("eval.Ls=1", "eval.ks=1")
    for name, ids in (("first", [4, 2]), ("later", [3])):
        made = evaluate(root, *pair, f"feature_scores={name}")
        assert pq.read_table(made.path / "features.parquet")["feature"].to_pylist() == ids
    with pytest.raises(StrataError, match=r"feature_scores=none: none of the feature_scores there \(first, later\)"):
        evaluate(root, *pair, "feature_scores=none")
    for folder in folders:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["features.feature_ids=[3,32]"], "names feature 32, and SAE .* has features 0 to 31"),
        (["features.feature_ids=[3]", "features.feature_ids_dir=x"], "set one of them"),
        (
            ["features.feature_ids_dir=nowhere"],
            "feature_ids_dir=nowhere: neither a folder nor one of the feature_scores",
        ),
        (["features.feature_ids_file=ids.json"], "is one list, and SAEs of 2 layers"),
        (["features.feature_ids_file=ids_{layer}.json"], "feature list ids_1.json can't be read"),
        (["run_features=false", "features.max_features=3"], "features.* would be ignored"),
        (["sae.path=nowhere_{layer}"], "sae.path=nowhere_1: no such file or folder"),
        (["sae.layer=0", "sae.hook=mlp_out", "sae.max_fvu=null"], "reads mlp_out.0, and the operators predict"),
    ],
)
def test_a_mistake_is_told_before_any_work(root, overrides, message):
    words = [word.replace("=ids_{layer}.json", '="ids_{layer}.json"') for word in overrides]
    words = [word.replace("=nowhere_{layer}", '="nowhere_{layer}"') for word in words]
    if "sae.layer=0" in words:
        words.append(f"sae.path={root}/gemma-scope-2b-pt-res/layer_2")
    with pytest.raises(StrataError, match=message):
        evaluate(root, *words)
