"""Lists of features in files: feature_scores_{layer}.json of the scoring stage (or the reference), or plain lists."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from src.errors import StrataError

LIST_KEY = "high_quality_feature_ids"


@dataclass(frozen=True)
class ListedFeatures:
    """Features that a file names, best first.

    scores: by name, one number per feature of the SAE, if it has any. layer: that the file says it is of.
    """

    ids: list[int]
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    layer: int | None = None

    def scores_of(self, feature: int) -> dict[str, float]:
        """The scores of one feature that are numbers."""
        found = {name: values[feature] for name, values in self.scores.items() if feature < len(values)}
        return {name: float(value) for name, value in found.items() if value is not None}


def read_listed_features(path: Path) -> ListedFeatures:
    """The features that a JSON file names, in its order, repeated ones once, and their scores.

    Raises StrataError if the file is missing, damaged, or names none.
    """
    remedy = f"give JSON with a list {LIST_KEY!r}, as score_features.py writes it, or a plain list of feature numbers"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StrataError(f"feature list {path} can't be read ({error.strerror}): {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise StrataError(f"feature list {path} is no JSON ({error}): {remedy}") from None
    ids = content.get(LIST_KEY) if isinstance(content, dict) else content
    if not isinstance(ids, list) or not ids or not all(type(each) is int and each >= 0 for each in ids):
        raise StrataError(f"feature list {path} names no features: {remedy}")
    is_bare = not isinstance(content, dict)
    scores, meta = ({}, {}) if is_bare else (content.get("scores"), content.get("meta"))
    layer = meta.get("hook_layer") if isinstance(meta, dict) else None
    usable = _usable(scores) if isinstance(scores, dict) else {}
    return ListedFeatures(list(dict.fromkeys(ids)), usable, layer if type(layer) is int else None)


def _usable(scores: dict[str, object]) -> dict[str, list[float | None]]:
    """Lists of numbers, with None for what is none."""
    return {
        name: [float(value) if isinstance(value, int | float) and value == value else None for value in values]
        for name, values in scores.items()
        if isinstance(values, list)
    }


def read_features_of_sae(path: Path, layer: int, n_features: int) -> ListedFeatures:
    """The same, of an SAE of n features that reads a layer.

    Raises StrataError also if the file says that it is of another layer, or has scores of more or fewer features.
    """
    found = read_listed_features(path)
    if found.layer not in (None, layer):
        raise StrataError(
            f"feature list {path} is of layer {found.layer}, and layer {layer} is wanted: put {{layer}} into its name, "
            f"or choose the list of layer {layer}"
        )
    others = {len(each) for each in found.scores.values()} - {n_features}
    if others:
        raise StrataError(
            f"feature list {path} scores {max(others):,} features, and the SAE has {n_features:,}: take the list that "
            "was made for this SAE"
        )
    return found
