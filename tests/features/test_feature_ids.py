"""Lists of features in files."""

import json

import pytest

from src.errors import StrataError
from src.features.feature_ids import read_listed_features


@pytest.mark.parametrize("content", [[4, 0, 7], {"high_quality_feature_ids": [4, 0, 7], "scores": {}}])
def test_a_plain_list_and_the_scores_of_a_layer_are_read_in_their_order(tmp_path, content):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(content))
    assert read_listed_features(path).ids == [4, 0, 7]


def test_repeated_features_count_once_and_scores_come_along(tmp_path):
    path = tmp_path / "ids.json"
    path.write_text("[5, 2, 5, 9]")
    assert read_listed_features(path).ids == [5, 2, 9]
    path.write_text(json.dumps({"high_quality_feature_ids": [1, 0], "scores": {"final_score": [0.5, None], "odd": 3}}))
    found = read_listed_features(path)
    assert (found.ids, found.scores_of(0), found.scores_of(1)) == ([1, 0], {"final_score": 0.5}, {})


@pytest.mark.parametrize(
    "content", ["[]", "{}", '["a"]', "[1.5]", "[-1]", "[true]", "3", '{"high_quality_feature_ids": 3}']
)
def test_what_names_no_features_is_refused(tmp_path, content):
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(StrataError, match=r"ids\.json names no features: give JSON with a list"):
        read_listed_features(path)


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(StrataError, match="can't be read"):
        read_listed_features(tmp_path / "none.json")
    (tmp_path / "ids.json").write_text("[1,")
    with pytest.raises(StrataError, match="is no JSON"):
        read_listed_features(tmp_path / "ids.json")
