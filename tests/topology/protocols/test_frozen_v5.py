"""actopo's numbers: golden ones, and equality with the installed package on clouds of many shapes."""

import json
import warnings
from dataclasses import replace

import actopo
import numpy as np
import pytest
from actopo.data import load_example_cloud

from src.errors import StrataError
from src.topology.homology.persistence import Bars, Persistence, persistence
from src.topology.protocols import frozen_v5
from src.topology.protocols.frozen_v5 import Cloud
from src.topology.protocols.preparation import prepare
from src.topology.protocols.protocol import FROZEN_V5, ROBUST

# n_points, eps_max, eps_pred, beta1_raw, beta1, survival_eps, survival_count, survival_rate
GOLDEN = {
    ("base", 600): (600, 11.4204, 0.3426, 452, 12, 0.1142, 186, 41.2),
    ("instruct", 600): (600, 5.5587, 0.1668, 617, 50, 0.0556, 316, 51.2),
    ("union", 1200): (1200, 11.7197, 0.3516, 1094, 11, 0.1172, 321, 29.3),
    ("base", 100): (100, 9.7597, 0.2928, 40, 3, 0.0976, 29, 72.5),
    ("instruct", 100): (100, 5.5587, 0.1668, 57, 4, 0.0556, 24, 42.1),
}
WITHOUT_OUTLIERS = {
    ("base", 1): (599, 10.5138, 0.3154, 452, 17, 0.1051, 208, 46.0),
    ("base", 6): (594, 9.2244, 0.2767, 450, 32, 0.0922, 232, 51.6),
    ("instruct", 1): (599, 5.3312, 0.1599, 617, 57, 0.0533, 327, 53.0),
    ("instruct", 6): (594, 5.1125, 0.1534, 614, 68, 0.0511, 337, 54.9),
}
DIAMETERS = {"base": 11.420415878295898, "instruct": 5.558748722076416, "union": 11.719746589660645}
FRACTIONS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.08, 0.1)
BETTI = {
    "base": (308, 186, 117, 58, 28, 12, 4, 1, 1, 0, 0, 0),
    "instruct": (459, 316, 214, 144, 86, 50, 28, 20, 3, 0, 0, 0),
    "union": (624, 321, 153, 73, 26, 11, 3, 1, 1, 0, 0, 0),
}
LEVELS = {
    "base": """0.0 0.2331 0.4661 0.6992 0.9323 1.1653 1.3984 1.6315 1.8646 2.0976 2.3307 2.5638 2.7968 3.0299 3.263
        3.496 3.7291 3.9622 4.1953 4.4283 4.6614 4.8945 5.1275 5.3606 5.5937 5.8267 6.0598 6.2929 6.526 6.759 6.9921
        7.2252 7.4582 7.6913 7.9244 8.1574 8.3905 8.6236 8.8566 9.0897 9.3228 9.5559 9.7889 10.022 10.2551 10.4881
        10.7212 10.9543 11.1873 11.4204""",
    "instruct": """0.0 0.1134 0.2269 0.3403 0.4538 0.5672 0.6807 0.7941 0.9076 1.021 1.1344 1.2479 1.3613 1.4748
        1.5882 1.7017 1.8151 1.9285 2.042 2.1554 2.2689 2.3823 2.4958 2.6092 2.7227 2.8361 2.9495 3.063 3.1764 3.2899
        3.4033 3.5168 3.6302 3.7436 3.8571 3.9705 4.084 4.1974 4.3109 4.4243 4.5378 4.6512 4.7646 4.8781 4.9915 5.105
        5.2184 5.3319 5.4453 5.5587""",
}
SURVIVORS = {"base": [452, 55, 1], "instruct": [617, 139, 19]}
# finite bars of H0 and H1: their sums, the least and largest birth and the largest death of H1
DIAGRAMS = {
    "base": (1927.65880382061, 53.032217502593994, 2.59317684173584, 6.241148948669434, 6.342371940612793),
    "instruct": (1261.7674835920334, 45.40888321399689, 1.8882664442062378, 3.015732526779175, 3.0654642581939697),
    "union": (3197.389384508133, 99.95002329349518, 1.8882664442062378, 8.630085945129395, 8.650957107543945),
}
LONGEST = {
    "base": """0.63181 0.4221 0.420514 0.409889 0.399347 0.392119 0.390276 0.385453 0.383952 0.380518 0.357597
        0.345026""",
    "instruct": """0.305964 0.285437 0.284279 0.276777 0.268475 0.260821 0.259511 0.251972 0.2502 0.250152 0.249619
        0.247172""",
}
LONGEST["union"] = LONGEST["base"]
# lifetimes next to the thresholds of the Betti number (+- 0.01) and of survival (+- 0.003), longest first
NEAR = {
    ("base", 0.03, 0.01): "0.345026",
    (
        "instruct",
        0.03,
        0.01,
    ): """0.17496 0.174392 0.172892 0.172696 0.172105 0.171409 0.169045 0.166693 0.166157 0.164446
        0.163917 0.163908 0.163296 0.161419 0.158485 0.158132 0.157914 0.156894""",
    ("union", 0.03, 0.01): "0.357597 0.345026",
    ("base", 0.01, 0.003): "0.116991 0.115985 0.113477 0.113177 0.113138 0.11307 0.112863 0.111264",
    ("instruct", 0.01, 0.003): """0.057861 0.057582 0.056703 0.056682 0.056599 0.056378 0.056339 0.056232 0.05546
        0.055418 0.05528 0.055247 0.054413 0.054099 0.054064 0.054046 0.053853 0.053738 0.053591 0.053215 0.053202
        0.053097 0.053097 0.052955 0.052813 0.052648""",
    ("union", 0.01, 0.003): """0.120184 0.120009 0.119916 0.119401 0.119398 0.11918 0.119087 0.119027 0.118434 0.118335
        0.118119 0.117795 0.11767 0.11756 0.117162 0.116991 0.116892 0.116642 0.116253 0.115985 0.114553""",
}
# a, b, whether by scales of their own: beta1_a, beta1_b, beta1_union, verdict, overlap_pct, eps_mode
UNIONS = {
    ("base", "instruct", True): (12, 50, 11, "SHARED", 102.0, "independent"),
    ("base", "instruct", False): (12, 0, 12, "SEPARATE", 0.0, "shared(0.3426)"),
    ("instruct", "base", False): (50, 123, 174, "SEPARATE", -0.8, "shared(0.1668)"),
    ("instruct", "base", True): (50, 12, 11, "SHARED", 102.0, "independent"),
    ("base[:300]", "base[300:]", True): (9, 6, 12, "SEPARATE", 33.3, "independent"),
    ("base[:300]", "base[300:]", False): (9, 11, 17, "SEPARATE", 27.3, "shared(0.3154)"),
}


@pytest.fixture(scope="module")
def points() -> dict[str, np.ndarray]:
    base, instruct = load_example_cloud("base"), load_example_cloud("instruct")
    halves = {"base[:300]": base[:300], "base[300:]": base[300:]}
    return {"base": base, "instruct": instruct, "union": np.concatenate([base, instruct]), **halves}


@pytest.fixture(scope="module")
def clouds(points) -> dict[str, Cloud]:
    return {name: Cloud.from_points(rows) for name, rows in points.items()}


def of(numbers: tuple, dimension: int = 1) -> dict:
    names = ("n_points", "eps_max", "eps_pred", "beta1_raw", "beta1", "survival_eps", "survival_count", "survival_rate")
    return {**dict(zip(names, numbers, strict=True)), "dim": dimension, "config_fingerprint": "fab472512cfa"}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_measurements(points, clouds, name):
    cloud = clouds[name[0]] if len(points[name[0]]) == name[1] else points[name[0]][: name[1]]
    assert frozen_v5.measure(cloud).to_dict() == of(GOLDEN[name])


@pytest.mark.parametrize("name", WITHOUT_OUTLIERS)
def test_golden_measurements_without_the_outermost_points(points, name):
    cloud = points[name[0]]
    away = np.linalg.norm(cloud - cloud.mean(axis=0), axis=1)
    assert frozen_v5.measure(np.delete(cloud, np.argsort(-away)[: name[1]], axis=0)).to_dict() == of(
        WITHOUT_OUTLIERS[name]
    )


def test_golden_measurements_of_other_dimensions(points, clouds):
    for name, numbers in {"base": (11.4204, 0.3426, 0.1142), "instruct": (5.5587, 0.1668, 0.0556)}.items():
        expected = of((600, numbers[0], numbers[1], 600, 599, numbers[2], 599, 99.8), 0)
        assert frozen_v5.measure(clouds[name], dimension=0).to_dict() == expected
    none = of((100, 9.7597, 0.2928, 0, 0, 0.0976, 0, 0.0), 2)
    assert frozen_v5.measure(points["base"][:100], dimension=2).to_dict() == none


def test_golden_diameters_and_betti_numbers_of_other_fractions(clouds):
    assert {name: clouds[name].eps_max for name in DIAMETERS} == DIAMETERS
    for name, counts in BETTI.items():
        found = [frozen_v5.measure(clouds[name], FROZEN_V5.changed({"betti_fraction": part})) for part in FRACTIONS]
        assert tuple(one.beta1 for one in found) == counts


def test_golden_betti_numbers_on_other_scales(clouds):
    for name, (median, p99, radius, *counts) in {
        "base": (5.011826038360596, 8.66253662109375, 9.13406753540039, 139, 42, 34),
        "instruct": (3.2068140506744385, 4.4105634689331055, 4.013171672821045, 177, 103, 127),
    }.items():
        distances = clouds[name].distances
        scales = [distances.median, distances.quantile(0.99), distances.enclosing_radius]
        assert scales == pytest.approx([median, p99, radius], rel=1e-7)  # the percentile was taken in float32
        assert [clouds[name].longer(0.03 * scale) for scale in scales] == counts


@pytest.mark.parametrize("name", SURVIVORS)
def test_golden_survival_curves(clouds, name):
    assert frozen_v5.survival_curve(clouds[name]) == {
        "eps_max": round(DIAMETERS[name], 4),
        "beta1_raw": SURVIVORS[name][0],
        "eps_levels": [float(level) for level in LEVELS[name].split()],
        "survival": SURVIVORS[name] + [0] * 47,
    }


@pytest.mark.parametrize("name", DIAGRAMS)
def test_golden_diagrams(clouds, name):
    cloud = clouds[name]
    assert [int(np.isinf(cloud.diagram(k)[:, 1]).sum()) for k in (0, 1)] == [1, 0]
    bars = cloud.diagram(1)
    found = [cloud.lifetimes(0).sum(), cloud.lifetimes(1).sum(), bars[:, 0].min(), bars[:, 0].max(), bars[:, 1].max()]
    assert found == pytest.approx(DIAGRAMS[name], rel=1e-14)  # sums depend on the order
    assert cloud.lifetimes(1)[:-13:-1].round(6).tolist() == [float(value) for value in LONGEST[name].split()]
    for fraction, within in ((0.03, 0.01), (0.01, 0.003)):
        near = cloud.lifetimes(1)[np.abs(cloud.lifetimes(1) - fraction * cloud.eps_max) < within]
        expected = [float(value) for value in NEAR[name, fraction, within].split()]
        assert near[::-1].round(6).tolist() == expected


def test_golden_comparisons(points, clouds):
    base, instruct = clouds["base"], clouds["instruct"]
    assert (frozen_v5.phi(base, instruct), frozen_v5.phi(instruct, base)) == (0.8, 1.24)
    assert frozen_v5.center_distance(points["base"], points["instruct"]) == 0.6204
    assert frozen_v5.center_distance(base, instruct, normalized=False) == 8.412507
    names = ("bottleneck_raw", "bottleneck_filtered", "bottleneck_normalized", "eps_pred_a", "eps_pred_b")
    expected = dict(zip(names, (0.315905, 0.315905, 0.922, 0.3426, 0.1668), strict=True))
    assert frozen_v5.bottleneck_distance(base, instruct) == expected
    first = frozen_v5.bottleneck_distance(points["base"][:100], points["instruct"][:100])
    assert first == dict(zip(names, (0.435946, 0.435946, 1.4889, 0.2928, 0.1668), strict=True))


@pytest.mark.parametrize("name", UNIONS)
def test_golden_unions(clouds, name):
    found = frozen_v5.union_test(clouds[name[0]], clouds[name[1]], independent_eps=name[2])
    keys = ("beta1_a", "beta1_b", "beta1_union", "verdict", "overlap_pct", "eps_mode")
    assert found == dict(zip(keys, UNIONS[name], strict=True))


def test_golden_verdicts():
    expected = {
        "SEPARATE": [(0, 0, 0), (10, 10, 16), (50, 0, 50), (12, 50, 60), (12, 50, 61), (10, 10, 40)],
        "MIXED": [(10, 10, 15), (10, 10, 13)],
        "SHARED": [(10, 10, 12), (12, 50, 49), (1, 1, 1)],
    }
    for verdict, cases in expected.items():
        assert {frozen_v5.union_verdict(*case) for case in cases} == {verdict}


def test_golden_fingerprints():
    assert frozen_v5.config_fingerprint() == "fab472512cfa"
    assert frozen_v5.config_fingerprint(FROZEN_V5.changed({"betti_fraction": 0.05})) == "9a28ad79f12e"
    other = {"survival_fraction": 0.02, "max_dimension": 2, "n_scale_steps": 7, "metric": "cosine"}
    theirs = actopo.ProtocolConfig(survival_eps_frac=0.02, maxdim=2, n_eps_steps=7, metric="cosine")
    assert frozen_v5.config_fingerprint(FROZEN_V5.changed(other)) == theirs.fingerprint()


SHAPES = ("normal", "grid", "scaled", "offset", "copies", "low rank", "repeated", "circle", "identical", "float16")


def random_cloud(kind: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    points = rng.normal(size=(n, d))
    match kind:
        case "grid":
            return rng.integers(0, 4, size=(n, d)).astype(float)
        case "scaled":
            return points * 10.0 ** rng.integers(-4, 5)
        case "offset":
            return points + rng.normal(size=d) * 10.0 ** rng.integers(0, 4)
        case "copies":
            points[rng.integers(0, n, n // 2)] = points[rng.integers(0, n, n // 2)]
        case "low rank":
            rank = min(d, int(rng.integers(1, 4)))
            return rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
        case "repeated":
            return np.resize(points[:5], (n, d)) + 100
        case "circle":
            angle = rng.uniform(0, 2 * np.pi, n)
            points[:, 0] += 10 * np.cos(angle)
            points[:, -1] += 10 * np.sin(angle)
        case "identical":
            return np.repeat(points[:1], n, axis=0)
        case "float16":
            return points.astype(np.float16)
    return points


def printed(found: dict) -> dict[str, str]:
    return {name: str(value) for name, value in found.items()}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", range(50))
def test_parity_with_actopo_on_random_clouds(case):
    rng = np.random.default_rng(case)
    d = int(rng.integers(1, 51))
    # sizes from 10 to 150, more small ones than large
    sizes = (10 + 141 * rng.uniform(size=2) ** 2).astype(int)
    a, b = (
        random_cloud(SHAPES[kind % 10], n, d, rng) for kind, n in zip((case, case + case // 10 + 1), sizes, strict=True)
    )
    for dimension in (0, 1):
        ours, theirs = frozen_v5.measure(a, dimension=dimension), actopo.measure(a, dim=dimension)
        assert printed(ours.to_dict()) == printed(theirs.to_dict())
        curve = frozen_v5.survival_curve(a, dimension=dimension)
        assert printed(curve) == printed(actopo.survival_curve(a, dim=dimension))
    assert str(frozen_v5.phi(a, b)) == str(actopo.phi(a, b))
    for normalized in (True, False):
        ours, theirs = frozen_v5.center_distance(a, b, normalized), actopo.center_distance(a, b, normalized)
        assert str(ours) == str(theirs)
    assert printed(frozen_v5.bottleneck_distance(a, b)) == printed(actopo.bottleneck_distance(a, b))
    for independent in (True, False):
        ours, theirs = (one.union_test(a, b, independent_eps=independent) for one in (frozen_v5, actopo))
        assert printed(ours) == printed(theirs)


def test_parity_of_other_protocols():
    points = np.random.default_rng(0).normal(size=(40, 6))
    ours = FROZEN_V5.changed({"metric": "cosine", "max_dimension": 2, "n_scale_steps": 9, "betti_fraction": 0.1})
    theirs = actopo.ProtocolConfig(metric="cosine", maxdim=2, n_eps_steps=9, betti_eps_frac=0.1)
    for dimension in (0, 1, 2):
        mine = frozen_v5.measure(points, ours, dimension)
        assert printed(mine.to_dict()) == printed(actopo.measure(points, theirs, dimension).to_dict())
        curve = frozen_v5.survival_curve(points, ours, dimension)
        assert printed(curve) == printed(actopo.survival_curve(points, theirs, dimension))


def test_bottleneck_distances_are_exact(clouds):
    # gudhi.bottleneck_distance says 0.190714 of these
    first = [[0.984833, 1.337982], [0.197741, 0.497056], [0.891251, 1.157415]]
    second = [
        [0.467375, 0.840072],
        [0.454044, 0.770616],
        [0.007027, 0.388432],
        [0.961029, 1.383640],
        [0.816714, 1.053505],
    ]
    of_first, of_second = (
        replace(clouds["base"], known=Persistence(600, (Bars(0, *np.empty((2, 0))), Bars(1, *np.array(bars).T)), ""))
        for bars in (first, second)
    )
    found = frozen_v5.bottleneck_distance(of_first, of_second)
    # the bar of the second cloud that none of the first is near to goes to the diagonal
    assert found["bottleneck_raw"] == pytest.approx((0.388432 - 0.007027) / 2, abs=1e-6)


def test_a_prepared_cloud_is_not_measured_twice(points, monkeypatch):
    prepared = prepare(points["base"][:80], FROZEN_V5)
    found = persistence(prepared.distances)
    monkeypatch.setattr(frozen_v5, "persistence", None)
    cloud = Cloud(prepared.points, prepared.distances, prepared.scale, known=found)
    assert printed(frozen_v5.measure(cloud).to_dict()) == printed(actopo.measure(points["base"][:80]).to_dict())


def test_what_is_returned_goes_into_json(points):
    a, b = points["base"][:50], points["instruct"][:50]
    found = [frozen_v5.measure(a).to_dict(), frozen_v5.survival_curve(a), frozen_v5.center_distance(a, b)]
    found += [frozen_v5.bottleneck_distance(a, b), frozen_v5.union_test(a, b), frozen_v5.phi(a, b)]
    assert json.loads(json.dumps(found)) == found


def test_what_cannot_be_measured_is_refused(points):
    base = points["base"]
    with pytest.raises(StrataError, match="10 or more points: this one has 9"):
        frozen_v5.measure(base[:9])
    with pytest.raises(StrataError, match="shape"):
        frozen_v5.measure(base[0])
    for value in (np.nan, np.inf, 1e300):
        broken = base[:20].astype(np.float64)
        broken[3, 1] = value
        with pytest.raises(StrataError, match="1 of 20 points are not finite in float32, the first is point 3"):
            frozen_v5.survival_curve(broken)
    with pytest.raises(StrataError, match="no common coordinates"):
        frozen_v5.union_test(base[:20], base[:20, :5])
    with pytest.raises(StrataError, match="no common coordinates"):
        frozen_v5.center_distance(base[:20], base[:20, :1])
    with pytest.raises(StrataError, match="protocol=robust"):
        frozen_v5.measure(base[:20], ROBUST)
    with pytest.raises(StrataError, match="prepared with metric=euclidean"):
        frozen_v5.measure(Cloud.from_points(base[:20]), FROZEN_V5.changed({"metric": "cosine"}))


def test_clouds_of_different_models_are_warned_about(points):
    a, b = points["base"][:12], points["instruct"][:12]
    with pytest.warns(UserWarning, match="false SHARED"):
        frozen_v5.union_test(a, b, same_basis=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frozen_v5.union_test(a, b, independent_eps=True, same_basis=False)
