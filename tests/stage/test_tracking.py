"""What W&B is given: it refuses a column of a table that mixes numbers and words."""

import json
from pathlib import Path

import pytest

from src.config.shared import LoggerConfig
from src.report.tables import Interval, Table
from src.stage.tracking import WandbTracker


@pytest.fixture
def tracker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = LoggerConfig(kind="wandb", mode="offline", project="p", entity=None, group=None, tags=[])
    made = WandbTracker(logger, run_id="one", group="g", job_type="j", name="n", config={})
    yield made
    made.finish(exit_code=0)


def test_a_table_of_numbers_and_words_in_one_column_is_logged(tracker, tmp_path):
    interval: Interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    tracker.log_table(Table("Rows", ["", "count", "r"], [["rows", 1557, interval], ["tied", "one table", None]]))
    (written,) = (json.loads(path.read_text()) for path in Path(tmp_path).rglob("*.table.json"))
    assert written["data"] == [["rows", "1,557", 0.5], ["tied", "one table", None]]


def test_a_table_without_rows_is_logged(tracker):
    tracker.log_table(Table("Nothing", ["a", "b"], []))


def test_each_curve_has_steps_of_its_own(tracker, monkeypatch):
    """A run's own count of steps never goes back, and the second training begins at 0 again."""
    logged, metrics = [], []
    monkeypatch.setattr(tracker._run, "log", logged.append)
    monkeypatch.setattr(tracker._run, "define_metric", lambda name, **keys: metrics.append((name, keys)))
    for curve in ("modulator", "zero"):
        tracker.log_point(curve, 0, {"val": 1.5})
        tracker.log_point(curve, 10, {"val": 1.0, "loss": 1.2})
    assert metrics == [(f"{curve}/*", {"step_metric": f"{curve}/step"}) for curve in ("modulator", "zero")]
    assert logged[1] == {"modulator/step": 10, "modulator/val": 1.0, "modulator/loss": 1.2}
    assert logged[2] == {"zero/step": 0, "zero/val": 1.5}
