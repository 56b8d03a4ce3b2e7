"""Lists of features in files."""

import json

import pytest

from src.errors import StrataError
from src.features.feature_ids import read_feature_ids


@pytest.mark.parametrize("content", [[4, 0, 7], {"high_quality_feature_ids": [4, 0, 7], "scores": {}}])
def test_a_plain_list_and_the_scores_of_a_layer_are_read_in_their_order(tmp_path, content):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(content))
    assert read_feature_ids(path) == [4, 0, 7]


@pytest.mark.parametrize(
    "content", ["[]", "{}", '["a"]', "[1.5]", "[-1]", "[true]", "3", '{"high_quality_feature_ids": 3}']
)
def test_what_names_no_features_is_refused(tmp_path, content):
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(StrataError, match=r"ids\.json names no features: give JSON with a list"):
        read_feature_ids(path)


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(StrataError, match="can't be read"):
        read_feature_ids(tmp_path / "none.json")
    (tmp_path / "ids.json").write_text("[1,")
    with pytest.raises(StrataError, match="is no JSON"):
        read_feature_ids(tmp_path / "ids.json")
