"""Lists of features in files: feature_scores_{layer}.json of the scoring stage (or the reference), or plain lists."""

import json
from pathlib import Path

from src.errors import StrataError

LIST_KEY = "high_quality_feature_ids"


def read_feature_ids(path: Path) -> list[int]:
    """The features that a JSON file names, in its order, the best first.

    Raises StrataError if the file is missing, damaged, or names none.
    """
    remedy = f"give JSON with a list {LIST_KEY!r}, as score_features.py writes it, or a plain list of feature numbers"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StrataError(f"feature list {path} can't be read ({error.strerror}): {remedy}") from None
    except ValueError as error:
        raise StrataError(f"feature list {path} is no JSON ({error}): {remedy}") from None
    ids = found.get(LIST_KEY) if isinstance(found, dict) else found
    if not isinstance(ids, list) or not ids or not all(type(each) is int and each >= 0 for each in ids):
        raise StrataError(f"feature list {path} names no features: {remedy}")
    return ids


def refuse_list_of_other_sae(path: Path, layer: int, n_features: int) -> None:
    """StrataError if a file of `read_feature_ids` says that it is of another layer, or has scores of more features."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        return
    meta, scores = found.get("meta"), found.get("scores")
    own_layer = meta.get("hook_layer") if isinstance(meta, dict) else None
    if own_layer not in (None, layer):
        raise StrataError(
            f"feature list {path} is of layer {own_layer}, and layer {layer} is wanted: put {{layer}} into its name, or "
            f"choose the list of layer {layer}"
        )
    counts = {len(each) for each in scores.values() if isinstance(each, list)} if isinstance(scores, dict) else set()
    if counts - {n_features}:
        raise StrataError(
            f"feature list {path} scores {max(counts):,} features, and the SAE has {n_features:,}: take the list that "
            "was made for this SAE"
        )
