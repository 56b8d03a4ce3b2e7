"""explain_features.py as a user runs it: a tiny model and its SAE, a bucket and an explainer on this machine."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sae_lens
import torch

import explain_features
from src.activations.store import open_store
from src.artifacts import verify
from src.config.explain_features import ExplainConfig
from src.errors import StrataError
from src.features.sae import load_sae
from src.hook_points import HookPoint
from src.report.index import write_index
from src.stage.entry import compose, run_stage
from tests.fixtures.saes import sae_config
from tests.fixtures.tiny_models import D_MODEL
from tests.fixtures.tiny_project import make_project
from tests.fixtures.web_servers import bucket_server, chat_server, json_lines

__all__ = ["bucket_server", "chat_server"]

POINT = HookPoint("resid_post", 1)
KEY = "sk-nobody-may-see-this"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    project = make_project(folder, n_documents=40)
    project.collect("layers=[1]", "hooks=[resid_post]", "storage_dtype=float32")
    config = sae_lens.TopKSAEConfig(d_in=D_MODEL, d_sae=40, k=4)
    config.metadata = sae_lens.saes.sae.SAEMetadata(hook_name="blocks.1.hook_resid_post", neuronpedia_id="tiny/1-res")
    torch.manual_seed(0)
    sae = sae_lens.TopKSAE(config)
    sae.W_enc.data = torch.randn(sae.W_enc.shape)
    sae.save_model(folder / "saes" / "layer_1")
    return folder


@pytest.fixture
def project(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    return folder


def run(*overrides: str):
    words = ["model.path=model", "model.name=tiny", "dataset.dataset_name=text.jsonl", "dataset.dataset_split=null"]
    words += ["sae.path=saes/layer_1", "sae.max_fvu=null", "sae_layer=1", "threads=1", "contexts.top=3", *overrides]
    config = compose("explain_features", words)
    return run_stage(explain_features.run, ExplainConfig, "explain_features", config, words)


def activations(project):
    """Of all counted tokens, by a plain pass; and how many there are."""
    sae = load_sae(sae_config(path="saes/layer_1"))
    parts = list(open_store(project / "artifacts" / "activations" / "store"))
    return np.concatenate([sae.encode(it.activations(POINT)).numpy()[it.keep == 0] for it in parts])


def test_cards_of_the_most_frequent_features(project, capsys):
    made = run("max_features=6")
    every = activations(project)
    fires = (every > 0).sum(0)
    table = pq.read_table(made.path / "features.parquet").to_pylist()
    assert [row["firings"] for row in table] == sorted(fires, reverse=True)[:6]
    for row in table:
        assert row["firings"] == fires[row["feature"]]
        assert row["rate"] == pytest.approx(fires[row["feature"]] / len(every))
        assert row["maximum"] == pytest.approx(every[:, row["feature"]].max(), rel=1e-5)
        assert (len(row["promoted"]), len(row["neighbours"]), sum(row["histogram"])) == (10, 6, row["firings"])
        assert row["promoted_effect"][0] == max(row["promoted_effect"]) > 0 > row["suppressed_effect"][0]
    contexts = pq.read_table(made.path / "contexts.parquet").to_pylist()
    best = {}
    for row in contexts:
        assert row["activation"] == pytest.approx(row["activations"][row["place"]])
        best[row["feature"]] = max(best.get(row["feature"], 0), row["activation"])
    assert best == pytest.approx({row["feature"]: row["maximum"] for row in table}, rel=1e-5)
    assert verify(made.path) == []
    index = write_index(project / "artifacts").read_text()
    link = f"explanations/{made.path.name}/feature_cards_1.html"
    assert f'href="{link}"' in index
    assert (project / "artifacts" / link).is_file()
    shown = capsys.readouterr().out
    assert "top tokens (share)" in shown
    assert all(str(row["feature"]) in shown for row in table)
    # the same command again finds it; another seed draws other contexts
    assert run("max_features=6").meta.started_at == made.meta.started_at
    assert "reused" in capsys.readouterr().out
    assert run("max_features=6", "seed=1", "promoted=0", "contexts.bands=0").path != made.path


def test_explanations_of_neuronpedia_and_of_an_explainer(project, bucket_server, chat_server, monkeypatch, capsys):
    rows = [{"index": "3", "description": "old"}, {"index": "3", "description": "about <b>three</b>"}]
    bucket_server.files["v1/tiny/1-res/explanations/batch-0.jsonl.gz"] = json_lines(rows)
    chat_server.reply = lambda prompt: "said by the stub"
    monkeypatch.setenv("STUB_KEY", KEY)
    overrides = ["features=[3,0]", "sae_path=auto", f"neuronpedia.url={bucket_server.url}", "cache_dir=cache"]
    overrides += ["explainer=openai_compatible", f"explainer.base_url={chat_server.url}/v1", "explainer.model=stub"]
    made = run(*overrides, "explainer.api_key_env=STUB_KEY")
    shown = capsys.readouterr().out
    assert "asked 2 times" in shown
    assert shown.index("asked 2 times") < shown.index("said by the stub")
    said = pq.read_table(made.path / "explanations.parquet").to_pylist()
    assert [(it["feature"], it["text"], it["source"]) for it in said] == [
        (3, "about <b>three</b>", "Neuronpedia"),
        (3, "old", "Neuronpedia"),
        (3, "said by the stub", "stub"),
        (0, "said by the stub", "stub"),
    ]
    assert "about &lt;b&gt;three" in (made.path / "feature_cards_1.html").read_text()
    assert all(headers["Authorization"] == f"Bearer {KEY}" for _, headers in chat_server.requests)
    written = [path for place in ("artifacts", "cache") for path in (project / place).rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in shown
    n_asked = len(chat_server.requests)
    run(*overrides, "explainer.api_key_env=STUB_KEY", "overwrite=true")
    assert len(chat_server.requests) == n_asked


def test_neuronpedia_alone_needs_no_store(project, bucket_server, tmp_path):
    rows = [{"index": str(i), "description": f"number {i}"} for i in (4, 2, 9)]
    bucket_server.files["v1/m/7-res/explanations/batch-0.jsonl.gz"] = json_lines(rows)
    (tmp_path / "ids.json").write_text(json.dumps({"high_quality_feature_ids": [9, 5, 4]}))
    overrides = ["cards=false", "sae_layer=7", "sae_path=7-res", "neuronpedia.model=m", f"artifacts_dir={tmp_path}/a"]
    overrides += [f"neuronpedia.url={bucket_server.url}", f"cache_dir={tmp_path}/cache"]
    output = tmp_path / "out.json"
    made = run(*overrides, f"feature_ids_file={tmp_path}/ids.json", f"output_file={output}")
    document = json.loads(output.read_text())
    assert [row["description"] for row in document["data"]] == ["number 9", "number 4"]
    assert document["meta"]["sae_id"] == "7-res"
    assert (document["meta"]["sae_layer"], document["meta"]["num_features"]) == (7, 3)
    assert not list(made.path.glob("*.html"))
    every = run(*overrides)
    found = json.loads((every.path / "feature_explanations_7.json").read_text())
    assert [row["index"] for row in found["data"]] == ["2", "4", "9"]


def test_nothing_is_sent_without_being_asked_for(project, bucket_server, chat_server):
    run("features=[1]", f"neuronpedia.url={bucket_server.url}", f"explainer.base_url={chat_server.url}/v1")
    assert not bucket_server.requests
    assert not chat_server.requests


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["features=[40]"], "feature 40 is beyond the 40 features"),
        (["features=[1]", "sae_layer=null", "layers=all"], "set sae_layer"),
        (["features=[1]", "feature_ids_file=x.json"], "set one of them"),
        (["feature_ids_file=x.json"], r"feature list x\.json can't be read"),
        (["feature_scores=none"], "neither a path nor one of the feature_scores"),
        (["cards=false"], "set sae_path"),
        (["explainer=openai_compatible"], "needs explainer.base_url and explainer.model"),
        (["explainer.base_url=http://me:secret@host/v1"], "must hold no password"),
        (["neuronpedia.url=file:///etc"], "must begin with http"),
        (["explainer.api_key_env=sk-abc"], "explainer.api_key_env"),
        (["output_file=x.json"], "output_file is for explanations"),
    ],
)
def test_slips_are_told_before_any_work(project, overrides, message):
    with pytest.raises(StrataError, match=message):
        run(*overrides)


def test_a_missing_key_is_told_before_any_work(project, monkeypatch):
    monkeypatch.delenv("STUB_KEY", raising=False)
    words = ["explainer=openai_compatible", "explainer.base_url=http://localhost:1/v1", "explainer.model=m"]
    with pytest.raises(StrataError, match="STUB_KEY holds no key"):
        run(*words, "explainer.api_key_env=STUB_KEY")
