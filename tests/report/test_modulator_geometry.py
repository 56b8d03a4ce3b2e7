"""Sentences, tables and figures of modulated geometry: what is claimed, and what is not."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from src.geometry.simplices.profile import SimplexSettings
from src.geometry.words.matching import Word
from src.modulators.evaluation.effects import FROZEN
from src.modulators.evaluation.geometry.readings import MODULATED, VECTORS, WordReading, contrasts, profile_readings
from src.modulators.evaluation.geometry.relations import kinship
from src.modulators.evaluation.geometry.volumes import cloud_volumes
from src.report.finding import Finding, write_finding
from src.report.modulators.evaluation.relations import RelationsFound, relations_finding
from src.report.modulators.evaluation.volumes import volumes_finding
from src.report.terminal import print_table
from tests.fixtures.random_taxonomy import made_taxonomy

N, D, LAYER = 40, 16, 2
# a thing, six kinds, kinds of these, and words
TAXONOMY = made_taxonomy(
    [[], *([0] for _ in range(6)), *([1 + i % 6] for i in range(12)), *([7 + i % 12] for i in range(N - 19))]
)


def states(signal: float, seed: int) -> torch.Tensor:
    rows = np.random.default_rng(seed).normal(size=(N, D))
    for sense in range(N):
        for parent in TAXONOMY.parents(sense):
            rows[sense] += signal * rows[parent]
    return torch.from_numpy(rows)


def finding(rows: dict[str, torch.Tensor], n_known: int | None = 30, told: int = 0) -> Finding:
    readings = [WordReading(name, None if name == VECTORS else LAYER, [each]) for name, each in rows.items()]
    profiles = profile_readings(
        readings, kinship(TAXONOMY, list(range(N))), LAYER, "centred", 19, 0, torch.device("cpu")
    )
    words = [Word(f"word{i}", f"word{i}", (i,), (i,), 0) for i in range(N)]
    return relations_finding(RelationsFound(words, told, n_known, LAYER, profiles, contrasts(profiles, LAYER)))


def test_a_modulator_beyond_all_controls_is_said_to_be():
    found = finding({FROZEN: states(0, 0), MODULATED: states(1, 1), "zero": states(0, 0), "shuffled": states(0, 2)})
    first, verdict, what = found.text.split("\n\n")
    assert first.startswith(f"After block {LAYER} the cosines of {N} held-out words' states correlate")
    assert "more than with each of the 2 controls of equal strength (zero, shuffled)" in verdict
    assert "30 of the 40 words have a vector" in what
    assert found.metrics["relations/change"] > 0


def test_a_modulator_no_better_than_its_controls_is_not_praised():
    same = {FROZEN: states(0, 0), MODULATED: states(1, 1), "zero": states(1, 1), "shuffled": states(0, 2)}
    assert "more than with shuffled, but not than with zero" in finding(same).text
    worse = {FROZEN: states(1, 1), MODULATED: states(0, 0), "zero": states(1, 1)}
    assert "not more than with any of the controls of equal strength (zero)" in finding(worse).text
    alone = finding({FROZEN: states(0, 0), MODULATED: states(1, 1)}, None)
    assert "no controls of equal strength beside it" in alone.text
    assert "have a vector" not in alone.text


def test_words_that_were_trained_on_and_vectors_are_told():
    found = finding({VECTORS: states(1, 1), FROZEN: states(0, 0), MODULATED: states(0, 3)}, told=5)
    assert "5 held-out words were left out: it was trained on their definitions." in found.text
    assert "These vectors themselves correlate" in found.text


def test_states_that_are_all_alike_are_no_result(tmp_path):
    alike = torch.ones(N, D, dtype=torch.float64)
    found = finding({FROZEN: states(0, 0), MODULATED: alike, "zero": states(0, 0)})
    assert "no relation to speak of" in found.text
    assert "not more than with any" in found.text
    write_finding(tmp_path, found)
    records = json.loads((tmp_path / "word_contrasts.json").read_text())
    assert records[0]["path"] is None


def test_tables_fit_a_terminal_and_records_hold_every_reading(tmp_path):
    found = finding({FROZEN: states(0, 0), MODULATED: states(1, 1), "constant": states(0, 2)})
    for table in found.tables:
        lines = io.StringIO()
        print_table(replace(table, caption=""), Console(file=lines, width=200))
        assert max(map(len, lines.getvalue().rstrip().splitlines())) <= 110, table.title
    write_finding(tmp_path, found)
    assert {row["states"] for row in json.loads((tmp_path / "word_relations.json").read_text())} == {
        FROZEN,
        MODULATED,
        "constant",
    }
    assert found.figures[0].chart.to_dict()


SETTINGS = SimplexSettings(k=2, n_simplices=400, pool=60, null_draws=3, resamples=100)


def test_volumes_are_told_beside_null_and_controls():
    cloud = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 8)))
    clouds = {FROZEN: cloud, MODULATED: 0.5 * cloud, "zero": 0.9 * cloud}
    found = volumes_finding({"all": cloud_volumes(clouds, (FROZEN, MODULATED), SETTINGS, 0)}, 5, "documents")
    assert found.text.startswith("Volumes of 2-simplices of states after block 5 (one token of each of 60 test docum")
    assert "Controls of equal strength change the CV by: zero" in found.text
    assert found.metrics["volumes/beyond_size"] == pytest.approx(0, abs=1e-9)
    assert found.figures[0].chart.to_dict()


def test_a_cloud_without_volume_is_not_called_healthy():
    """H9: no valid simplex gave NaN, which was read as healthy."""
    cloud = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 8)))
    clouds = {FROZEN: cloud, MODULATED: torch.ones_like(cloud)}
    found = volumes_finding({"all": cloud_volumes(clouds, (FROZEN, MODULATED), SETTINGS, 0)}, 5, "documents")
    assert found.text.startswith("No simplex of modulated 2-simplices") or "has a volume" in found.text.split("\n\n")[0]
    assert "nothing is said of how volumes vary" in found.text
    assert math.isnan(found.metrics["volumes/cv_modulated"])
    assert "healthy" not in found.text
