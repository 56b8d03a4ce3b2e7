from src.geometry.published import PUBLISHED, published


def test_the_figures_are_those_of_the_notebook():
    stated = {(each.metric, each.model): (each.value, each.highest) for each in PUBLISHED}
    assert len(stated) == len(PUBLISHED)
    assert stated["simplex_cv", "“universal band”"] == (0.20, 0.23)
    assert stated["digit_r", "Qwen3.5-0.8B"] == (-0.862, None)
    assert stated["small_k_share", "T5-Base"] == (0.300, None)
    assert stated["matched_tokens", "T5-Small"] == (9362, None)
    assert [each.model for each in published("small_v_share")] == ["T5-Small", "T5-Base"]
    assert all(each.highest is None or each.highest > each.value for each in PUBLISHED)
