"""Features edited by causal_eval.py, in a model with one that is transported and one that is made on the way."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sae_lens
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import capture, wrap_model
from src.report.artifact_report import read_report
from tests.fixtures.tiny_models import D_MODEL, model_config
from tests.fixtures.tiny_project import make_project
from tests.stages.test_causal_eval import by_name, records, run, write_own_text

MADE, KEPT, SILENT = 0, 1, 5
N_FEATURES = 8
LAYER_1 = HookPoint("resid_post", 1)
PAIR = ("causal_eval.L=0", "causal_eval.k=1")
FEATURES = "interventions=[transport_features,ablate_features,mean_features,random_features]"


def directions() -> torch.Tensor:
    """Orthonormal: rows 0 and 1 are of the features that matter."""
    return torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(3)))[0]


def block_1_makes_a_feature_of_the_tokens_before(module: PreTrainedModel) -> None:
    """Layer 0 knows the token alone, and nothing along direction 0; block 1 writes there alone, from other tokens."""
    made = directions()[MADE]
    orthogonal = torch.eye(D_MODEL) - torch.outer(made, made)
    with torch.no_grad():
        layers, embedding = module.model.layers, module.model.embed_tokens.weight
        head = embedding.clone() if module.lm_head.weight is embedding else module.lm_head.weight
        module.lm_head.weight = torch.nn.Parameter(head.clone())
        embedding.copy_(embedding @ orthogonal)
        layers[0].self_attn.o_proj.weight.zero_()
        layers[0].mlp.down_proj.weight.copy_(orthogonal @ layers[0].mlp.down_proj.weight)
        for layer in (1, 2):
            layers[layer].mlp.down_proj.weight.zero_()
        for projection in (layers[1].self_attn.q_proj, layers[1].self_attn.k_proj):
            projection.weight.zero_()  # all tokens before count alike
        mixture = layers[1].self_attn.o_proj.weight[0].clone()
        layers[1].self_attn.o_proj.weight.copy_(torch.outer(made, 8 * mixture))
        layers[2].self_attn.o_proj.weight.zero_()


def save_sae(folder: Path, layer: int, hook: str = "resid_post", threshold: float = 1.0) -> None:
    """Each feature reads a direction above a threshold (feature 0: a high one); 5 never fires."""
    config = sae_lens.StandardSAEConfig(d_in=D_MODEL, d_sae=N_FEATURES, apply_b_dec_to_input=False)
    config.metadata = sae_lens.saes.sae.SAEMetadata(hook_name=f"blocks.{layer}.hook_{hook}")
    sae = sae_lens.StandardSAE(config)
    with torch.no_grad():
        sae.W_dec.copy_(directions()[:N_FEATURES])
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_enc.fill_(-0.1)
        sae.b_enc[MADE], sae.b_enc[SILENT] = -threshold, -1e4
        sae.b_dec.zero_()
    sae.save_model(str(folder / f"layer_{layer}"))


def often_below(folder: Path) -> float:
    """What the made direction exceeds at three tokens in ten: an operator that knows no more predicts no firing."""
    model = wrap_model(AutoModelForCausalLM.from_pretrained(folder / "model"), model_config())
    texts = [json.loads(line)["text"].split() for line in (folder / "heldout.jsonl").read_text().splitlines()]
    values = []
    for words in texts:
        ids = torch.tensor([[1, *(int(word[1:]) for word in words)]])
        state = capture(model, ids, torch.ones_like(ids), [LAYER_1])[LAYER_1]
        values.append(state[0, 1:] @ directions()[MADE])
    return float(torch.cat(values).quantile(0.7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    make_project(folder, n_documents=80, change=block_1_makes_a_feature_of_the_tokens_before)
    write_own_text(folder / "heldout.jsonl")
    for layer in (1, 2):
        save_sae(folder / "saes", layer, threshold=often_below(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("collect_activations", "num_tokens=null", "storage_dtype=float32", dataset="text.jsonl")
        ridge = ("auto_tune=false", "regularization=1e-6", "cv_folds=2", "name=ridge")
        run("train_transport_operators", "experiment.L=all", "experiment.k=all", *ridge, dataset="text.jsonl")
    return folder


@pytest.fixture
def project(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    return folder


def edit(*overrides: str):
    sae = ("sae.path='saes/layer_{layer}'", "sae.max_fvu=null")
    return run("causal_eval", *sae, *overrides)


def of_features(made) -> dict[tuple, dict]:
    return {(it["L"], it["k"], it["features"], it["intervention"]): it for it in records(made) if it["features"]}


@pytest.fixture(scope="module")
def planted(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return edit(*PAIR, f"features.feature_ids=[{MADE},{KEPT},{SILENT}]", FEATURES, "rows_per_pass=5")


def test_what_is_transported_is_won_back_and_what_is_made_on_the_way_is_not(project, planted):
    found = of_features(planted)
    kept, made = (found[0, 1, str(feature), "transport_features"] for feature in (KEPT, MADE))
    for feature in (KEPT, MADE):
        ablated = found[0, 1, str(feature), "ablate_features"]
        assert ablated["nll_change"] > 1e-3
        assert ablated["max_deviation"] == 0
        assert ablated["n_affected"] < ablated["n_predictions"]
        for control in ("mean_features", "random_features"):
            assert abs(found[0, 1, str(feature), control]["nll_change"]) > 1e-5
    assert kept["recovered_vs_ablate_features"] == pytest.approx(1, abs=1e-3)
    assert abs(kept["nll_change"]) < 1e-5
    assert abs(made["recovered_vs_ablate_features"]) < 0.3
    assert made["recovered_vs_ablate_features_low"] <= made["recovered_vs_ablate_features"]
    assert {feature for _, _, feature, _ in found} == {str(KEPT), str(MADE)}  # the silent one is left out
    # the mean is over the train share of the store, and edits every token
    every = found[0, 1, str(KEPT), "mean_features"]["tokens_edited"]
    assert every > found[0, 1, str(KEPT), "ablate_features"]["tokens_edited"]


def test_tables_figures_and_files_tell_the_features(project, planted):
    report = read_report(planted.path)
    (table,) = [table for table in report.tables if table.title == "What edits of features do to predictions"]
    assert list(table.columns) == [
        "L",
        "k",
        "feature",
        "firings",
        "ablated",
        "transported",
        "mean",
        "random",
        "recovered",
        "vs mean",
    ]
    rows = {row[2]: row for row in table.rows}
    assert set(rows) == {str(KEPT), str(MADE)}
    record = of_features(planted)[0, 1, str(KEPT), "ablate_features"]
    per_firing = record["nll_change"] * record["n_predictions"] / record["tokens_edited"]
    assert rows[str(KEPT)][3] == record["tokens_edited"]
    assert rows[str(KEPT)][4]["value"] == pytest.approx(per_firing)
    assert {path.stem for path in (planted.path / "figures").glob("*.png")} == {"feature_changes", "feature_shares"}
    assert "written in place of 3 features of SAEs of resid_post, in 24 sequences" in report.text
    scores = pq.read_table(planted.path / "token_scores.parquet").to_pandas()
    (condition,) = record["conditions"]
    assert condition == f"ablate_features {KEPT} resid_post.1 at all"
    own = scores[scores.condition == condition]
    assert 0 < own.edited.sum() <= record["tokens_edited"]  # edits of last tokens change no prediction
    assert len(own) == record["n_affected"]


def test_a_pair_of_layers_each_with_its_own_sae_and_all_features_together_beside_whole_activations(project, tmp_path):
    for layer in (1, 2):
        content = {"high_quality_feature_ids": [KEPT, MADE, 2, 3], "meta": {"hook_layer": layer}}
        (tmp_path / f"feature_scores_{layer}.json").write_text(json.dumps(content))
    names = "interventions=[transport,zero,transport_features,ablate_features]"
    files = f"features.feature_ids_file='{tmp_path}/feature_scores_{{layer}}.json'"
    words = ("causal_eval.L=0", "causal_eval.k=[1,2]", names, "features.max_features=2", "causal_eval.js=[[3],[6]]")
    made = edit(*words, files, "features.mode=together")
    found = [it for it in records(made) if it.get("features")]
    assert {it["features"] for it in found} == {"2 features"}
    assert {(it["k"], it["positions"]) for it in found} == {(k, js) for k in (1, 2) for js in ("3", "6", "pooled")}
    whole = [it for it in records(made) if not it.get("features")]
    assert {it["intervention"] for it in whole} == {"transport", "zero"}
    alone = run("causal_eval", *words[:2], words[4], "interventions=[transport,zero]")
    expected = by_name(alone)
    for it in whole:
        same = expected[it["L"], it["k"], it["intervention"], it["operator"], it["positions"]]
        assert it["nll_change"] == pytest.approx(same["nll_change"], abs=1e-6)
    by_folder = edit(*words, f"features.feature_ids_dir={tmp_path}", "features.mode=together")
    assert by_folder.path == made.path
    titles = [table.title for table in read_report(made.path).tables]
    assert titles[:2] == ["What interventions do to predictions", "What edits of features do to predictions"]


def test_without_feature_interventions_nothing_knows_of_saes(project):
    words = (*PAIR, "causal_eval.js=[[3]]", "interventions=[zero]")
    made = run("causal_eval", *words)
    assert "features" not in made.meta.identity
    assert all("features" not in it for it in records(made))
    assert run("causal_eval", *words, "sae.path=nowhere", "features.max_features=3").path == made.path


def test_the_sae_and_the_features_decide_the_fingerprint(project, tmp_path):
    words = (*PAIR, "causal_eval.js=[[3]]", "interventions=[ablate_features]")
    shutil.copytree("saes/layer_1", tmp_path / "layer_1")
    paths = {
        edit(*words, f"features.feature_ids={ids}", *more).path
        for ids, more in (("[1]", ()), ("[1,2]", ()), ("[1,2]", ("features.mode=together",)))
    }
    assert len(paths) == 3
    copied = edit(*words, "features.feature_ids=[1,1]", f"sae.path={tmp_path}/layer_1")
    assert copied.path in paths


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("features.feature_ids=[5]", FEATURES),
            r"features never fire at a token of the text that is edited: 5; choose",
        ),
        (("features.feature_ids=[8]", FEATURES), r"names feature 8, and SAE saes/layer_1 has features 0 to 7"),
        ((FEATURES,), r"no features of SAE saes/layer_1 are named, and none are scored: .*feature_ids=\[12,40\]"),
        (
            ("features.feature_ids=[1]", FEATURES, "sae.path=saes/layer_2"),
            r"sae.layer=1|reads blocks.2.hook_resid_post",
        ),
        (("features.feature_ids=[1]", FEATURES, "sae.path=saes/none"), r"saes/none"),
        (("features.feature_ids_file=other.json", FEATURES), r"other.json is of layer 2, and layer 1 is wanted"),
        (("features.feature_ids_file=wide.json", FEATURES), r"wide.json scores 9 features, and the SAE has 8"),
    ],
)
def test_what_can_not_be_edited_is_told_in_one_message(project, words, message):
    Path("other.json").write_text(json.dumps({"high_quality_feature_ids": [1], "meta": {"hook_layer": 2}}))
    Path("wide.json").write_text(json.dumps({"high_quality_feature_ids": [1], "scores": {"final_score": [0.0] * 9}}))
    with pytest.raises(StrataError, match=message):
        edit(*PAIR, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("eval_mode=baselines", FEATURES), r"need the store that operators were fitted on.* set eval_mode=pretrained"),
        (
            ("features.feature_ids=[1]",),
            r"features\.\* says which features are edited, and interventions names none of",
        ),
        ((FEATURES, "directions=some.safetensors"), r"edit features, and directions=\.\.\. edits along directions"),
    ],
)
def test_what_the_config_contradicts_is_refused_before_anything_is_loaded(project, words, message):
    with pytest.raises(StrataError, match=message):
        edit(*PAIR, *words)


def test_saes_of_another_hook_are_refused(project, tmp_path):
    save_sae(tmp_path, 1, "mlp_out")
    with pytest.raises(StrataError, match=r"mlp_out\.1"):
        edit(*PAIR, "features.feature_ids=[1]", FEATURES, f"sae.path={tmp_path}/layer_1")
