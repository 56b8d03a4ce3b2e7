"""Which features of an SAE a stage looks at: as the user says, else those that scored best, else all."""

import json
from dataclasses import dataclass
from pathlib import Path

from src.artifacts import META, Artifact, list_artifacts, open_artifact, refuse_damaged
from src.config.features import FeatureListConfig
from src.errors import StrataError
from src.features.feature_ids import read_features_of_sae, read_listed_features
from src.features.sae import Sae, require_point
from src.stage.context import Stage

SCORES = "feature_scores"
_REMAKE = "run its score_features.py command again, and it is made anew"


@dataclass(frozen=True)
class FeatureList:
    """Features of an SAE. source: where they come from, in words. artifact: that they come from, if any."""

    ids: list[int]
    source: str
    artifact: Artifact | None = None


def list_features(
    stage: Stage, config: FeatureListConfig, sae: Sae, n_saes: int, scores: str | None = None
) -> FeatureList:
    """The features of one of n SAEs that the config asks for, repeated ones once.

    scores: the artifact of scores that comes before later ones, where the config names no list.

    Raises StrataError for a list that is missing or damaged, or that names a feature which the SAE does not have.
    """
    found = _found(stage, config, sae, n_saes, scores)
    ids = list(dict.fromkeys(found.ids))
    if config.feature_ids != "all" and len(ids) < sae.n_features:
        ids = ids[: config.max_features]
    if outside := [each for each in ids if each >= sae.n_features]:
        raise StrataError(
            f"{found.source} names feature {outside[0]}, and SAE {sae.source} has features 0 to {sae.n_features - 1}: "
            "take the list that was made for this SAE"
        )
    return FeatureList(ids, found.source, found.artifact)


def _found(stage: Stage, config: FeatureListConfig, sae: Sae, n_saes: int, scores: str | None) -> FeatureList:
    layer = require_point(sae).layer
    if isinstance(config.feature_ids, list):
        return FeatureList(config.feature_ids, "features.feature_ids")
    if config.feature_ids_file is not None:
        if n_saes > 1 and "{layer}" not in config.feature_ids_file:
            raise StrataError(
                f"features.feature_ids_file={config.feature_ids_file} is one list, and SAEs of {n_saes} layers are "
                "wanted: put {layer} into it, or choose pairs of one target layer"
            )
        path = Path(config.feature_ids_file.replace("{layer}", str(layer))).expanduser()
        return FeatureList(_read(path, sae), str(path))
    if config.feature_ids_dir is not None:
        return _of_folder(stage, config.feature_ids_dir, sae)
    scored = [] if config.feature_ids == "all" else artifacts_of_sae(stage.root, SCORES, sae)
    if scores is not None and scores not in (names := [each.path.name for each in list_artifacts(stage.root, SCORES)]):
        raise StrataError(f"feature_scores={scores}: none of the {SCORES} there ({', '.join(names) or 'none'})")
    for artifact in sorted(scored, key=lambda each: each.path.name != scores):
        path = artifact.path / _file(layer)
        if path.is_file():
            refuse_damaged(artifact, _REMAKE)
            return FeatureList(read_listed_features(path).ids, f"{artifact.path.name}/{path.name}", artifact)
    return FeatureList(list(range(sae.n_features)), "all")


def _read(path: Path, sae: Sae) -> list[int]:
    return read_features_of_sae(path, require_point(sae).layer, sae.n_features).ids


def _of_folder(stage: Stage, chosen: str, sae: Sae) -> FeatureList:
    for folder in (stage.root / SCORES / chosen, Path(chosen).expanduser()):
        if folder.is_dir():
            artifact = open_artifact(folder, SCORES) if (folder / META).is_file() else None
            if artifact is not None:
                refuse_damaged(artifact, _REMAKE)
                if not _is_of_sae(artifact, sae):
                    raise StrataError(
                        f"features.feature_ids_dir={chosen}: {folder} scores other SAEs than {sae.source}: score its "
                        "features with score_features.py, or choose another list"
                    )
            path = folder / _file(require_point(sae).layer)
            return FeatureList(_read(path, sae), str(path), artifact)
    names = ", ".join(artifact.path.name for artifact in list_artifacts(stage.root, SCORES)) or "none"
    raise StrataError(
        f"features.feature_ids_dir={chosen}: neither a folder nor one of the {SCORES} in {stage.root / SCORES} "
        f"(there: {names}); score features with score_features.py, or set features.feature_ids=all"
    )


def _file(layer: int) -> str:
    return f"feature_scores_{layer}.json"


def artifacts_of_sae(root: Path, kind: str, sae: Sae) -> list[Artifact]:
    """The finished artifacts of a kind whose settings name this SAE's weights, the latest first."""
    found = [each for each in list_artifacts(root, kind) if _is_of_sae(each, sae)]
    return sorted(found, key=lambda each: each.meta.ended_at, reverse=True)


def _is_of_sae(artifact: Artifact, sae: Sae) -> bool:
    return sae.identity["weights"] in json.dumps(artifact.meta.identity)
