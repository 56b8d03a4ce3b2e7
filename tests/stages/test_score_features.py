"""score_features.py as a user runs it, on a tiny model and SAEs whose features are known."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import score_features
from src.artifacts import verify
from src.config.score_features import ScoreFeaturesConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_models import D_MODEL
from tests.fixtures.tiny_project import make_project

COHERENT, BROAD, DEAD = 2 * D_MODEL, 2 * D_MODEL + 1, 2 * D_MODEL + 2
N_FEATURES = 2 * D_MODEL + 3
TOKEN = 7  # where the coherent feature fires
REFERENCE_FIELDS = {
    "final_score",
    "coherence_token_entropy_inv",
    "focus_vocab_peak",
    "causal_effect_norm",
    "redundancy_maxcorr",
    "activation_rate",
    "mean_abs_activation",
    "entropy_vocab",
    "raw_token_entropy",
}


def first_block_adds_nothing(module: PreTrainedModel) -> None:
    """So that resid_post.0 is the token's embedding, the same wherever it stands."""
    module.model.layers[0].self_attn.o_proj.weight.data.zero_()
    module.model.layers[0].mlp.down_proj.weight.data.zero_()


def write_sae(folder: Path, layer: int, model: Path) -> None:
    """Coordinates and their negatives, which reconstruct anything; and features that fire at one token, many, never."""
    import sae_lens

    embeddings = AutoModelForCausalLM.from_pretrained(model).get_input_embeddings().weight.detach()
    unit = embeddings[TOKEN] / embeddings[TOKEN].norm()
    config = sae_lens.StandardSAEConfig(d_in=D_MODEL, d_sae=N_FEATURES)
    config.metadata = sae_lens.saes.sae.SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post")
    sae = sae_lens.StandardSAE(config)
    with torch.no_grad():
        encoder, decoder = torch.zeros(D_MODEL, N_FEATURES), torch.zeros(N_FEATURES, D_MODEL)
        encoder[:, :D_MODEL], encoder[:, D_MODEL : 2 * D_MODEL] = torch.eye(D_MODEL), -torch.eye(D_MODEL)
        decoder[: 2 * D_MODEL] = encoder[:, : 2 * D_MODEL].T
        encoder[:, COHERENT], encoder[0, BROAD] = unit, 1.0
        decoder[COHERENT] = 0.05 * unit
        decoder[BROAD] = 0.05 * unit
        bias = torch.zeros(N_FEATURES)
        others = (embeddings @ unit).sort().values
        bias[COHERENT] = -float(others[-2:].mean())  # between the token itself and the next alike
        bias[DEAD] = -1e6
        sae.W_enc.copy_(encoder), sae.W_dec.copy_(decoder), sae.b_enc.copy_(bias), sae.b_dec.zero_()
    sae.save_model(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    make_project(folder, n_documents=60, longest=30, change=first_block_adds_nothing)
    for layer in (0, 1):
        write_sae(folder / "saes" / f"layer_{layer}", layer, folder / "model")
    return folder


@pytest.fixture
def project(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    return folder


def run(*overrides: str):
    words = ["model.path=model", "model.name=tiny", "dataset.dataset_name=text.jsonl", "dataset.dataset_split=null"]
    words += ["sae.path='saes/layer_{layer}'", "threads=1", "max_tokens=10000", *overrides]
    return run_stage(score_features.run, ScoreFeaturesConfig, "score_features", compose("score_features", words), words)


@pytest.fixture(scope="module")
def scored(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
        return run("name=scored", "top_percent=50", "ablation_tokens=100000"), folder


def rows_of(made, folder: Path) -> dict[tuple[int, int], dict]:
    table = pq.read_table(folder / made.path / "features.parquet").to_pylist()
    return {(row["layer"], row["feature"]): row for row in table}


def texts(folder: Path) -> list[list[int]]:
    """Token ids without BOS, each text once."""
    read = [json.loads(line)["text"] for line in (folder / "text.jsonl").read_text().splitlines()]
    return [[int(word[1:]) for word in text.split()] for text in dict.fromkeys(read)]


def test_json_has_the_references_fields_for_every_feature(scored):
    made, folder = scored
    assert verify(folder / made.path) == []
    for layer in (0, 1):
        read = json.loads((folder / made.path / f"feature_scores_{layer}.json").read_text())
        assert set(read["scores"]) == REFERENCE_FIELDS
        assert {len(values) for values in read["scores"].values()} == {N_FEATURES}
        assert {"model_name", "sae_path", "hook_layer", "hook_stream", "eval_tokens", "eval_sequences"} <= set(
            read["meta"]
        )
        assert {"candidate_features", "top_percent", "candidate_percent"} <= set(read["meta"])
        assert read["meta"]["eval_tokens"] == sum(map(len, texts(folder)))
        chosen = read["high_quality_feature_ids"]
        final = read["scores"]["final_score"]
        assert len(chosen) == N_FEATURES // 2
        assert DEAD not in chosen
        assert [final[feature] for feature in chosen] == sorted((final[feature] for feature in chosen), reverse=True)


def test_the_feature_of_one_token_is_found_and_ranks_above_one_that_fires_anywhere(scored):
    made, folder = scored
    rows, counts = rows_of(made, folder), Counter(token for text in texts(folder) for token in text)
    coherent, broad, dead = (rows[0, feature] for feature in (COHERENT, BROAD, DEAD))
    assert coherent["tokens"] == counts[TOKEN]
    assert coherent["rate"] == pytest.approx(counts[TOKEN] / sum(counts.values()))
    assert coherent["documents"] == sum(TOKEN in text for text in texts(folder))
    assert (coherent["top_tokens"], coherent["top_shares"]) == (["w7"], [pytest.approx(1)])
    assert coherent["raw_token_entropy"] == pytest.approx(0, abs=1e-9)
    assert broad["rate"] > 0.2
    assert coherent["coherence"] > broad["coherence"] + 0.2
    assert coherent["score"] > broad["score"]
    assert dead["dead"]
    assert dead["tokens"] == 0
    assert math.isnan(dead["coherence"])


def test_redundant_features_name_each_other(scored):
    made, folder = scored
    broad = rows_of(made, folder)[0, BROAD]
    assert (broad["correlated_feature"], broad["correlation"]) == (0, pytest.approx(1))  # coordinate 0 as well
    assert broad["decoder_neighbour"] == COHERENT


def test_measured_effects_are_those_of_edits_of_the_running_model(scored):
    made, folder = scored
    row, unit = rows_of(made, folder)[0, 3], torch.eye(D_MODEL)[3]
    assert row["candidate"]
    module = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    change = firings = counted = 0.0

    def without(_module, _args, output):
        state = output.clone()
        z = state[:, 1:, 3].clamp_min(0)  # BOS keeps its own
        nonlocal firings
        firings += float((z > 0).sum())
        state[:, 1:] -= z[..., None] * unit
        return state

    for text in texts(folder):
        ids = torch.tensor([[1, *text]])
        with torch.no_grad():
            clean = module(ids, labels=ids).loss
            handle = module.model.layers[0].register_forward_hook(without)
            change += float(module(ids, labels=ids).loss - clean) * len(text)
            handle.remove()
        counted += len(text)
    assert row["ablation_per_token"] == pytest.approx(change / counted, rel=1e-3, abs=1e-5)
    assert row["ablation_per_firing"] == pytest.approx(change / firings, rel=1e-3, abs=1e-5)
    assert row["ablation_per_firing_error"] > 0


def test_all_of_it_is_shown_and_reused(scored, project, capsys):
    made, _ = scored
    report = read_report(project / made.path)
    assert {figure.title for figure in report.figures} == {
        "Rate, coherence and score",
        "Distribution of scores",
        "First-order effects against measured ones",
    }
    capsys.readouterr()
    again = run("name=scored", "top_percent=50", "ablation_tokens=100000")
    told = capsys.readouterr().out
    assert again.meta.fingerprint == made.meta.fingerprint
    assert "reused" in told
    assert "w7 100%" in told


def test_everything_can_be_a_candidate_and_selected(project):
    """candidate_percent or top_percent of 100 crashed the reference."""
    made = run("layers=0", "candidate_percent=100", "top_percent=100", "preset=strata", "ablation_tokens=300")
    read = json.loads((made.path / "feature_scores_0.json").read_text())
    assert len(read["high_quality_feature_ids"]) == N_FEATURES - 1  # all but the dead one
    assert read["meta"]["candidate_features"] == N_FEATURES - 1


def test_integrated_gradients_come_near_to_ablation(project):
    words = "layers=0", "candidate_percent=100", "ablation_tokens=300"
    exact, found = (
        rows_of(run(*words, f"causal={how}", "integrated.groups=1000", "integrated.steps=4"), project).values()
        for how in ("ablation", "integrated")
    )
    expected = np.array([row["ablation_per_token"] for row in exact])
    estimated = np.array([row["integrated_per_token"] for row in found])
    live = ~np.isnan(expected)
    assert live.sum() > 5
    assert np.corrcoef(estimated[live], expected[live])[0, 1] > 0.95
    assert [row["attribution_per_token"] for row in exact] == [row["attribution_per_token"] for row in found]


def test_without_gradients_there_are_no_effects(project):
    made = run("layers=1", "causal=none", "preset=strata")
    columns = pq.read_schema(made.path / "features.parquet").names
    assert not any(name.startswith(("attribution", "ablation")) for name in columns)
    assert (made.path / "feature_scores_1.json").exists()


def test_attribution_alone_is_in_every_features_score(project):
    made = run("layers=1", "causal=attribution")
    read = json.loads((made.path / "feature_scores_1.json").read_text())
    rows = rows_of(made, project)
    assert read["meta"]["candidate_features"] == 0
    best = max(range(N_FEATURES), key=lambda f: rows[1, f]["attribution_per_token"] if not rows[1, f]["dead"] else -1)
    assert read["scores"]["causal_effect_norm"][best] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["layers=[0,3]"], "has layers 0..2"),
        (["layers=2"], "no such file or folder"),
        (["max_tokens=50"], "max_tokens: 50 is not allowed"),
        (["top_percent=0"], "top_percent: 0"),
        (["candidate_percent=101"], "candidate_percent: 101"),
        (["sae_l0=100"], "chooses among the SAEs of a release"),
        (["preset.final={coherence:0.0,focus:0.0,causal:0.0,redundancy:0.0,dead:0.0}"], "all weights are 0"),
    ],
)
def test_bad_input_is_told_before_any_pass(project, monkeypatch, overrides, message):
    monkeypatch.setattr("src.stage.feature_scores.encode_text", lambda *_: pytest.fail("the text was encoded"))
    with pytest.raises(StrataError, match=message):
        run(*overrides)


def test_an_sae_of_another_width_or_hook_is_refused(project, tmp_path):
    import sae_lens

    for width in (8, D_MODEL):
        config = sae_lens.StandardSAEConfig(d_in=width, d_sae=4)
        config.metadata = sae_lens.saes.sae.SAEMetadata(hook_name="blocks.0.hook_resid_post")
        sae_lens.StandardSAE(config).save_model(tmp_path / str(width))
    with pytest.raises(StrataError, match="reads activations of width 8"):
        run("layers=0", f"sae.path={tmp_path / '8'}")
    with pytest.raises(StrataError, match=r"does not fit resid_post\.0"):
        run("layers=0", f"sae.path={tmp_path / str(D_MODEL)}")
