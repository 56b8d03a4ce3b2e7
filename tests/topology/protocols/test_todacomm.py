"""todacomm's numbers, to the last digit where floating point is done as it was when they were made.

The golden numbers (tests/fixtures/todacomm_golden.json) rest on a float32 SVD, whose last digits depend on the kernels
of OpenBLAS. A process of its own takes those of Haswell, which made them; the digits of other kernels are close.
"""

import json
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actopo.data import load_example_cloud

from src.errors import StrataError
from src.topology.homology.persistence import Bars, Persistence, persistence
from src.topology.protocols import todacomm
from src.topology.protocols.preparation import prepare
from src.topology.protocols.protocol import ROBUST, TODACOMM, Protocol
from src.topology.protocols.todacomm_geometry import geometry, recommend_pca_components

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = json.loads((ROOT / "tests" / "fixtures" / "todacomm_golden.json").read_text(encoding="utf-8"))
NAMES = tuple(f"H{k}_{what}" for k in (0, 1) for what in ("count", "total_persistence", "max_lifetime"))
CLOUDS = ("base", "instruct")
ALL = TODACOMM.changed({"max_points": 2000})
# protocol, seed, points of the cloud
CASES: dict[str, tuple[Protocol, int, int]] = {
    "pca50_uniform_max500_seed42": (TODACOMM, 42, 600),
    "pca50_uniform_max2000_seed42": (ALL, 42, 600),
    "pca20_TDAConfig_defaults_seed42": (ALL.changed({"pca_components": 20}), 42, 600),
    "pca20_uniform_max500_seed42": (TODACOMM.changed({"pca_components": 20}), 42, 600),
    "pcaNone_max2000": (ALL.changed({"pca_components": None}), 42, 600),
    "pca50_first75": (TODACOMM, 42, 75),
    "pca50_multiscale_max300_seed0": (TODACOMM.changed({"max_points": 300, "sampling": "multiscale"}), 0, 600),
    "pca50_adaptive_max300_seed0": (TODACOMM.changed({"max_points": 300, "sampling": "adaptive"}), 0, 600),
}


def row(summary: dict[str, float]) -> list[float]:
    return [summary[name] for name in NAMES]


def bootstrap(points: np.ndarray) -> dict[str, list[float]]:
    """todacomm's bootstrap: 20 resamples with copies, percentiles of what is left of them."""
    rng = np.random.RandomState(0)
    resampled = []
    for _ in range(20):
        rows = rng.choice(len(points), size=len(points), replace=True)
        resampled.append(row(todacomm.summary(points[rows], ALL, rng.randint(0, 2**31))))
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    spread = np.std(resampled, axis=0, ddof=1)
    found = {"lo": low.tolist(), "hi": high.tolist(), "se": spread.tolist()}
    return {"point": row(todacomm.summary(points, ALL, 0)), **found}


def sizes(points: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """todacomm's ablation of the sample size: 3 subsamples each, without replacement."""
    rng = np.random.RandomState(0)
    found = {}
    for size in (50, 100, 200, 400):
        values = []
        for _ in range(3):
            rows = rng.choice(len(points), size=size, replace=False)
            values.append(row(todacomm.summary(points[rows], ALL, rng.randint(0, 2**31))))
        mean, spread = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
        told = {"mean": mean, "std": spread, "min": np.min(values, axis=0), "max": np.max(values, axis=0)}
        found[str(size)] = {name: each.tolist() for name, each in {**told, "cv": spread / mean}.items()}
    return found


def everything() -> dict[str, Any]:
    """All golden numbers, computed anew. One SVD serves all that reduce the same cloud."""
    decompose = np.linalg.svd
    known = cache(lambda shape, data: decompose(np.frombuffer(data, np.float32).reshape(shape), full_matrices=False))
    np.linalg.svd = lambda points, **of: (
        known(points.shape, points.tobytes()) if of.get("compute_uv", True) else decompose(points, **of)
    )
    found: dict[str, Any] = {}
    for name in CLOUDS:
        cloud = load_example_cloud(name)
        found[name] = {
            "summary": {case: row(todacomm.summary(cloud[:n], of, seed)) for case, (of, seed, n) in CASES.items()},
            "info": {case: todacomm.prepare(cloud, *CASES[case][:2])[2] for case in GOLDEN[name]["info"]},
            "bootstrap": bootstrap(cloud[:200]),
            "sizes": sizes(cloud),
            "components": {
                str(number): row(todacomm.summary(cloud, ALL.changed({"pca_components": number}), 0))
                for number in (10, 20, 50, 100, None)
            },
            "geometry": geometry(cloud),
        }
    found["recommended"] = recommend_pca_components([found[name]["geometry"] for name in CLOUDS])
    found["identical"] = row(todacomm.summary(np.ones((75, 896))))
    of_five = np.random.RandomState(0).randint(0, 5, 75)
    found["five_points"] = row(todacomm.summary(load_example_cloud("base")[of_five]))
    return found


@pytest.fixture(scope="module")
def computed() -> dict[str, Any]:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the golden numbers were made with kernels of x86")
    own = {"OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__))]
    run = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def same(found: Any, expected: Any) -> bool:
    """Equality to the last digit, but for the order in which lifetimes were added up."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == pytest.approx(expected, rel=1e-13, abs=0) if isinstance(expected, float) else found == expected


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("what", ["summary", "info", "sizes", "components", "geometry"])
def test_golden_numbers(computed, name, what):
    assert same(computed[name][what], GOLDEN[name][what])


def test_golden_numbers_of_copies_and_the_recommendation(computed):
    assert computed["recommended"] == GOLDEN["recommended"] == 50
    assert same(computed["identical"], GOLDEN["identical"])
    assert same(computed["five_points"], GOLDEN["five_points"])


@pytest.mark.parametrize("name", CLOUDS)
def test_the_golden_bootstrap_misses_its_own_estimate(computed, name):
    assert same(computed[name]["bootstrap"], GOLDEN[name]["bootstrap"])
    found = computed[name]["bootstrap"]
    for statistic in ("H0_total_persistence", "H1_count"):
        k = NAMES.index(statistic)
        assert found["hi"][k] < found["point"][k]


def test_the_golden_comparison_of_bootstraps(computed):
    k = NAMES.index("H1_total_persistence")
    base, instruct = (computed[name]["bootstrap"] for name in CLOUDS)
    difference = base["point"][k] - instruct["point"][k]
    pooled = np.sqrt((base["se"][k] ** 2 + instruct["se"][k] ** 2) / 2)
    expected = GOLDEN["comparison"]
    assert difference == pytest.approx(expected["diff"], rel=1e-13)
    assert difference / pooled == pytest.approx(expected["cohens_d"], rel=1e-12)
    overlap = base["lo"][k] <= instruct["hi"][k] and instruct["lo"][k] <= base["hi"][k]
    assert overlap == expected["ci_overlap"] != expected["significant"]


@pytest.mark.parametrize("case", ["pca50_uniform_max500_seed42", "pcaNone_max2000", "pca50_multiscale_max300_seed0"])
def test_any_kernel_comes_close(case):
    protocol, seed, _ = CASES[case]
    found = row(todacomm.summary(load_example_cloud("instruct"), protocol, seed))
    expected = GOLDEN["instruct"]["summary"][case]
    assert found == pytest.approx(expected, rel=1e-5)
    assert (found[0], found[3]) == (expected[0], expected[3])


def test_the_bar_that_never_dies_adds_one():
    never = Bars(0, np.array([0.0, 0.0]), np.array([np.inf, 3.0]))
    late = Bars(1, np.array([2.0, 0.5]), np.array([np.inf, 1.5]))
    found = todacomm.summarise(Persistence(2, (never, late), "ripser"))
    assert row(found) == [2.0, 4.0, 3.0, 2.0, 2.0, 1.0]
    none = Persistence(1, (never, Bars(1, np.empty(0), np.empty(0))), "ripser")
    assert row(todacomm.summarise(none))[3:] == [0.0, 0.0, 0.0]


def test_prepare_gives_what_is_summarised():
    cloud = load_example_cloud("base")[:90]
    protocol = TODACOMM.changed({"max_points": 60, "pca_components": 8})
    prepared = prepare(cloud, protocol, seed=3)
    found = persistence(prepared.distances, protocol.max_dimension)
    assert todacomm.summarise(found) == todacomm.summary(cloud, protocol, seed=3)
    assert prepared.points.shape == (60, 8)
    assert len(set(prepared.rows.tolist())) == 60
    assert prepared.scale == prepared.distances.median


def test_geometry_of_known_shapes():
    rng = np.random.default_rng(0)
    plane = rng.uniform(size=(400, 2)) @ rng.normal(size=(2, 30))
    found = geometry(plane)
    assert found["mle_intrinsic_dim"] == pytest.approx(2, abs=0.3)
    assert (found["local_pca_intrinsic_dim"], found["pca_dim_for_95_var"]) == (2.0, 2)
    assert found["sparsity"] == 0.0
    nothing = geometry(np.zeros((60, 3)))
    assert (nothing["sparsity"], nothing["pca_dim_for_95_var"]) == (1.0, 1)
    # too few points for an estimate: the dimension of the space
    small = geometry(rng.normal(size=(8, 5)))
    assert (small["mle_intrinsic_dim"], small["local_pca_intrinsic_dim"]) == (5.0, 5.0)
    assert np.isnan(small["correlation_dim"])


def test_large_clouds_are_thinned():
    found = geometry(np.random.default_rng(0).normal(size=(5100, 2)))
    assert found["n_samples"] == 5100
    assert found["correlation_dim"] == pytest.approx(1.5, abs=0.4)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(StrataError, match="protocol=robust"):
        todacomm.summary(np.zeros((20, 3)), ROBUST)
    with pytest.raises(StrataError, match="not finite"):
        todacomm.summary(np.full((20, 3), np.nan))
    with pytest.raises(StrataError, match="3 or more"):
        geometry(np.zeros((2, 3)))


def test_sampling_keeps_what_fits():
    cloud = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    for sampling in ("uniform", "multiscale", "adaptive"):
        rows, told = todacomm.sample(cloud, TODACOMM.changed({"sampling": sampling}))
        assert rows.tolist() == list(range(50))
        assert told["n_samples"] == 50


if __name__ == "__main__":
    print(json.dumps(everything()))
