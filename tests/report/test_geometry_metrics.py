from src.geometry.published import PUBLISHED
from src.report.geometry.comparison.metrics import METRICS, Where, number_at


def test_metrics_have_names_of_their_own_and_published_ones_are_measured():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    # what is stated of alignments and of cross-attention has no row of one model
    assert {each.metric for each in PUBLISHED} - set(names) == {"relational_r", "cross_attention_positive_share"}


def test_numbers_are_found_by_key_index_and_field():
    document = {"a.b": [{"kind": "x", "n": 1}, {"kind": "y", "n": 2.5, "yes": True}]}
    assert number_at(document, ("a.b", Where("kind", "y"), "n")) == 2.5
    assert number_at(document, ("a.b", -2, "n")) == 1
    for path in (
        ("a.b", 2, "n"),
        ("a.b", Where("kind", "z"), "n"),
        ("a.b", "n"),
        ("c", 0),
        ("a.b", 1, "yes"),
        ("a.b",),
    ):
        assert number_at(document, path) is None
