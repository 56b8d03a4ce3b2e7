from src.geometry.published import PUBLISHED, published
from src.report.geometry.metrics import METRICS, Where, number_at


def test_the_figures_are_those_of_the_notebook():
    stated = {(each.metric, each.model): (each.value, each.highest) for each in PUBLISHED}
    assert len(stated) == len(PUBLISHED)
    assert stated["simplex_cv", "“universal band”"] == (0.20, 0.23)
    assert stated["digit_r", "Qwen3.5-0.8B"] == (-0.862, None)
    assert stated["small_k_share", "T5-Base"] == (0.300, None)
    assert stated["matched_tokens", "T5-Small"] == (9362, None)
    assert [each.model for each in published("small_v_share")] == ["T5-Small", "T5-Base"]
    assert all(each.highest is None or each.highest > each.value for each in PUBLISHED)


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
