"""eval.py run_matched_rank=true on a store whose transport is planted: no model is needed."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

import eval as eval_stage
import train_transport_operators
from src.artifacts import verify
from src.config.stages import EvalConfig, TransportConfig
from src.errors import StrataError
from src.hook_points import HookPoint
from src.stage.entry import compose, run_stage
from src.transport.operator import TransportOperator
from tests.fixtures import stores
from tests.fixtures.planted_transport import mixing

D, LENGTH, N_DOCUMENTS, SIZE = 24, 8, 320, 16
STAGES = {"train_transport_operators": (train_transport_operators.run, TransportConfig)}
STAGES["eval"] = (eval_stage.run, EvalConfig)


def run(stage, artifacts, *overrides):
    words = [f"artifacts_dir={artifacts}", "threads=1", "activations=made", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Layer 0 to 1: 16 of 24 directions correlate by 0.97. Layer 2 is drawn apart from both."""
    root = tmp_path_factory.mktemp("planted") / "artifacts"
    rng = np.random.default_rng(0)
    n = N_DOCUMENTS * LENGTH
    layers = rng.standard_normal((3, n, D))
    layers[1, :, :SIZE] = 0.97 * layers[0, :, :SIZE] + np.sqrt(1 - 0.97**2) * layers[1, :, :SIZE]
    rows = {HookPoint("resid_post", i): (x @ mixing(rng, D)).astype(np.float32) for i, x in enumerate(layers)}
    config = compose("eval", [])
    known = {"model": dict(config.model), "dataset": dict(config.dataset)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "PROVENANCE", replace(stores.PROVENANCE, config=known))
        stores.make_store(root, rows, [LENGTH] * N_DOCUMENTS, sequences_per_part=20)
    (store,) = (root / "activations").iterdir()
    store.rename(root / "activations" / "made") if store.name != "made" else None
    return root


@pytest.fixture(scope="module")
def operators(artifacts):
    return run("train_transport_operators", artifacts, "experiment.L=[0,1]", "experiment.k=1", "cv_folds=4")


@pytest.fixture(scope="module")
def evaluation(artifacts, operators):
    return run("eval", artifacts, "bootstrap=100", "run_matched_rank=true", "matched_rank.ranks=[1,16,24]")


@pytest.fixture
def undrawn(monkeypatch):
    """Figures as empty files: drawing them takes most of the time of a small run."""

    def save_chart(_chart, stem):
        paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "html", "vl.json")}
        for path in paths.values():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        return paths

    monkeypatch.setattr("src.report.artifact_report.save_chart", save_chart)


def by_pair(evaluation):
    records = json.loads((evaluation.path / "matched_rank_pairs.json").read_text())
    return {(record["L"], record["k"]): record for record in records}


def test_a_planted_transport_is_sized_and_independent_layers_have_none(evaluation):
    planted, nothing = by_pair(evaluation)[0, 1], by_pair(evaluation)[1, 1]
    assert 15 <= planted["participation_ratio"] <= 20
    assert planted["explained_dimensions_low"] < SIZE * 0.97**2 < planted["explained_dimensions_high"] + 0.3
    assert planted["explained_dimensions_p"] == pytest.approx(1 / 20)
    assert planted["explained_dimensions"] > 10 + planted["explained_dimensions_null_q975"]
    assert planted["ceiling_whitened"] == pytest.approx(SIZE * 0.97**2 / D, abs=0.03)
    assert 0.97 < planted["efficiency_whitened"] < 1.01
    assert -0.1 < nothing["explained_dimensions"] < 1
    assert 0 <= nothing["participation_ratio"] <= 1
    assert nothing["explained_dimensions_p"] > 0.05
    assert nothing["r2_whitened"] < 0.01


def test_files_hold_every_rank_of_every_curve(evaluation, operators):
    table = pq.read_table(evaluation.path / "matched_rank.parquet")
    rows = table.to_pylist()
    assert len(rows) == 2 * 2 * 4 * D  # pairs, metrics, curves
    by_curve = {}
    for row in rows:
        by_curve.setdefault((row["L"], row["metric"], row["curve"]), []).append(row)
    curves = {"ceiling", "reduced_rank_whitened", "reduced_rank_raw", "truncated_svd"}
    assert {key[1:] for key in by_curve} == {(metric, curve) for metric in ("whitened", "raw") for curve in curves}
    for (_, _, curve), of_curve in by_curve.items():
        assert [row["rank"] for row in of_curve] == list(range(1, D + 1))
        assert all(row["r2_low"] <= row["r2_high"] for row in of_curve)
        assert all(np.isnan(row["efficiency"]) for row in of_curve if curve == "ceiling")
    for metric in ("whitened", "raw"):
        best = by_curve[0, metric, f"reduced_rank_{metric}"]
        cut, ceiling = by_curve[0, metric, "truncated_svd"], by_curve[0, metric, "ceiling"]
        for own, other, limit in zip(best, cut, ceiling, strict=True):
            # the ceiling has no penalty: with one, a map can reach a little more of rows that it was not fitted on
            assert other["r2"] - 1e-3 <= own["r2"] <= limit["r2"] * 1.05
            assert own["efficiency"] == pytest.approx(own["r2"] / limit["r2"], rel=1e-9)
        # the penalty is the operator's own, so that full rank is the operator
        assert best[-1]["r2"] == pytest.approx(cut[-1]["r2"], abs=1e-8)
        record = by_pair(evaluation)[0, 1]
        assert record[f"r2_{metric}"] == pytest.approx(cut[-1]["r2"])
        assert record["reduced_rank_alpha"] == TransportOperator.load(operators.path / "L0_k1").alpha
    spectrum = pq.read_table(evaluation.path / "spectrum.parquet").to_pandas()
    planted = spectrum[spectrum.L == 0]
    assert list(planted.place) == list(range(1, D + 1))
    assert (planted.cross_fitted[:SIZE] > planted.null_q975[:SIZE] + 0.5).all()
    assert (planted.in_sample.diff()[1:] <= 1e-12).all()


def test_the_report_shows_tables_and_figures_and_the_folder_is_whole(evaluation):
    assert verify(evaluation.path) == []
    report = json.loads((evaluation.path / "report.json").read_text())
    tables = {table["title"]: table for table in report["tables"]}
    assert list(tables)[1:4] == [
        "Matched rank: operators against their ceilings",
        "Linear transport subspace",
        "R² by rank",
    ]
    assert tables["R² by rank"]["columns"] == ["L", "k", "map", "r = 1", "r = 16", "r = 24", "50% at", "90% at"]
    assert len(tables["R² by rank"]["rows"]) == 4
    drawn = {path.stem for path in (evaluation.path / "figures").glob("*.png")}
    assert drawn >= {"r2", "skill", "alpha", "efficiency", "explained_dimensions", "spectrum"}
    assert drawn >= {f"{value}_by_rank_{metric}" for value in ("r2", "efficiency") for metric in ("whitened", "raw")}
    assert "beside their baselines and the ceilings of every rank" in report["text"]


def test_matched_rank_only_gives_the_same_without_the_residual_metrics(artifacts, evaluation, undrawn):
    words = ("bootstrap=100", "matched_rank.ranks=[1,16,24]")
    only = run("eval", artifacts, *words, "matched_rank_only=true")
    assert only.path != evaluation.path
    assert not list(only.path.glob("residual.*"))
    for name in ("matched_rank.parquet", "spectrum.parquet", "matched_rank_pairs.json"):
        assert (only.path / name).read_bytes() == (evaluation.path / name).read_bytes()
    assert not (only.path / "figures" / "skill.png").exists()


def test_what_decides_the_analysis_is_in_the_fingerprint_and_the_same_command_reuses(
    artifacts, evaluation, undrawn, capsys
):
    words = ("bootstrap=100", "matched_rank.ranks=[1,16,24]")
    assert run("eval", artifacts, *words, "run_matched_rank=true").path == evaluation.path
    shown = capsys.readouterr().out
    assert "reused" in shown
    assert "Linear transport subspace" in shown
    # the standard written out is the standard
    explicit = ("matched_rank.permutations=19", "matched_rank.floor=1e-6", "run_matched_rank=true")
    assert run("eval", artifacts, *words, *explicit).path == evaluation.path
    without = run(
        "eval", artifacts, *words, "matched_rank_only=true", "matched_rank.permutations=0", "matched_rank.alpha=0.0"
    )
    assert "covers these pairs: reused" in capsys.readouterr().out
    record = by_pair(without)[0, 1]
    assert "explained_dimensions_p" not in record
    assert record["reduced_rank_alpha"] == 0
    assert "null_q975" not in pq.read_schema(without.path / "spectrum.parquet").names
    assert record["explained_dimensions"] == by_pair(evaluation)[0, 1]["explained_dimensions"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["matched_rank.permutations=9"], r"matched_rank\.\* would be ignored: it needs run_matched_rank=true"),
        (
            ["run_matched_rank=true", "matched_rank.ranks=[25]"],
            r"matched_rank\.ranks: 25 is above d_model, which is 24",
        ),
        (["run_matched_rank=true", "matched_rank.ranks=[0]"], r"matched_rank\.ranks: 0 is not allowed"),
        (["run_matched_rank=true", "matched_rank.floor=1.0"], r"matched_rank\.floor: 1\.0 is not allowed"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_is_refused_before_any_work(artifacts, operators, overrides, message):
    before = sorted(artifacts.rglob("*"))
    with pytest.raises(StrataError, match=message):
        run("eval", artifacts, *overrides)
    assert sorted(artifacts.rglob("*")) == before


def test_pairs_with_a_position_offset_are_analysed_on_the_rows_that_all_offsets_have(artifacts, undrawn):
    """Tokens are drawn apart, so that nothing is transported to the next one."""
    train = ("experiment.L=0", "experiment.k=1", "cv_folds=4", "experiment.position_offset=[0,1]", "name=offsets")
    run("train_transport_operators", artifacts, *train)
    made = run("eval", artifacts, "operators=offsets", "bootstrap=100", "run_matched_rank=true")
    records = json.loads((made.path / "matched_rank_pairs.json").read_text())
    here, following = ({record["offset"]: record for record in records}[offset] for offset in (0, 1))
    assert here["n_test_rows"] == following["n_test_rows"] < N_DOCUMENTS // 5 * LENGTH
    assert here["explained_dimensions"] > 10
    assert abs(following["explained_dimensions"]) < 1
    assert set(pq.read_table(made.path / "spectrum.parquet")["offset"].to_pylist()) == {0, 1}
    assert {"spectrum.png", "spectrum_offset_1.png"} <= {path.name for path in (made.path / "figures").iterdir()}
