"""The table over clouds."""

from dataclasses import replace

import numpy as np

from src.report.topology.profiles import cloud_table
from src.topology.profile import Interval
from src.topology.profiling import ProfileSettings, profile_cloud
from src.topology.protocols.protocol import ROBUST


def test_a_dimension_that_the_points_cannot_span_is_not_shown():
    points = np.random.default_rng(0).normal(size=(20, 4))
    profile = profile_cloud(points, ROBUST, ProfileSettings(null_draws=19), seed=0, name="cloud")
    shown = [
        cloud_table([replace(profile, intrinsic={"two_nn": Interval(value, 0.5 * value, 2 * value)})], 0.05)
        for value in (3.5, 4.5)
    ]
    assert [table.rows[0][-1] for table in shown] == [{"value": 3.5, "low": 1.75, "high": 7.0}, None]
    assert ["more than the points span" in table.caption for table in shown] == [False, True]
