"""Assessments in words, and the summary over features."""

import math

import pytest

from src.features.predicting.assessments import assess, calibration_summary

GOOD = {"rms_ratio": 1.0, "mean_abs_ratio": 1.0, "mean_ratio": 1.0, "rel_error_mean": 0.1, "log_mse_ratio": 0.01}


@pytest.mark.parametrize(
    ("metric", "value", "key", "word"),
    [
        ("rms_ratio", 0.9, "rms", "excellent"), ("rms_ratio", 1.25, "rms", "good"), ("rms_ratio", 0.6, "rms", "fair"),
        ("rms_ratio", 1.68, "rms", "poor"), ("mean_abs_ratio", 0.8, "magnitude", "good"),
        ("mean_ratio", 1.09, "bias", "minimal"), ("mean_ratio", 0.71, "bias", "moderate"),
        ("mean_ratio", -4.0, "bias", "significant"), ("rel_error_mean", 0.2, "precision", "good"),
        ("rel_error_mean", 1.0, "precision", "poor"), ("log_mse_ratio", 0.99, "consistency", "fair"),
    ],
)  # fmt: skip
def test_words_change_where_the_reference_changes_them(metric, value, key, word):
    assert assess({**GOOD, metric: value})[f"{key}_assessment"] == word


def test_only_a_significant_bias_has_a_direction_and_what_is_not_known_has_no_word():
    assert "bias_direction" not in assess({**GOOD, "mean_ratio": 1.2})
    assert assess({**GOOD, "mean_ratio": 1.5})["bias_direction"] == "overestimation"
    assert assess({**GOOD, "mean_ratio": 0.5})["bias_direction"] == "underestimation"
    assert assess({"rms_ratio": None, "mean_ratio": math.nan}) == {}


def record(rate: float, **metrics) -> dict:
    known = {**GOOD, **metrics} if rate else dict.fromkeys(GOOD)
    return {
        **known, "feature_never_activated": rate == 0, "activation_count": int(1000 * rate), "activation_rate": rate,
        "total_samples": 1000, "calib_interpretation": assess(known),
    }  # fmt: skip


def test_the_summary_counts_moderate_bias_apart_and_leaves_out_what_never_fired():
    summary = calibration_summary(
        [
            record(0.995), record(0.6, mean_ratio=1.2), record(0.2, rms_ratio=1.2, mean_ratio=2.0),
            record(0.005, rms_ratio=9.0, rel_error_mean=1e6), record(0.0),
        ]
    )  # fmt: skip
    assert summary["bias_directions"] == {"overestimation": 1, "underestimation": 0, "minimal": 2, "moderate": 1}
    assert summary["assessments"] == {"excellent": 2, "good": 1, "fair": 0, "poor": 1}
    assert summary["rms_ratios"] == [1.0, 1.0, 1.2, 9.0]
    assert summary["rms_ratio_mean"] == pytest.approx(3.05)
    assert (summary["rel_error_mean"] > 1e5, summary["rel_error_median"]) == (True, pytest.approx(0.1))
    assert summary["overall_quality_score_rms"] == pytest.approx((2 + 0.7) / 4)
    of_kinds = [(2 + 0.7) / 4, 1.0, (2 + 0.7) / 4, 0.75, 1.0]  # rms, magnitude, bias, precision, consistency
    assert summary["overall_quality_score"] == pytest.approx(sum(of_kinds) / 5)
    activity = summary["activation_summary"]
    assert (activity["total_features"], activity["never_activated_features"], activity["total_samples"]) == (5, 1, 1000)
    kinds = ("always", "often", "sometimes", "rarely")
    assert [activity[f"{kind}_active_features"] for kind in kinds] == [1, 1, 1, 1]
    assert activity["max_activation_rate"] == 0.995


def test_a_summary_of_features_that_never_fire_has_no_score():
    summary = calibration_summary([record(0.0)])
    assert "overall_quality_score" not in summary
    assert summary["rms_ratios"] == []
