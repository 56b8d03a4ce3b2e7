"""The features that causal_eval.py edits: SAEs of the target layers, chosen features, and means of their latents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.passes import rows_by_part
from src.activations.store import ActivationStore
from src.artifacts import Parent
from src.causal.design import FeatureSubject
from src.causal.feature_codes import FeatureCodes
from src.config.causal import CausalEvalConfig
from src.errors import StrataError
from src.features.active import active_features
from src.features.sae import Sae
from src.hook_points import HookPoint
from src.stage.causal_operators import Subjects
from src.stage.context import Stage
from src.stage.feature_lists import FeatureList, list_features
from src.stage.saes import load_saes

_MEAN_ROWS = 50_000  # of the train share: standard errors below 1 % of a latent's deviation


@dataclass(frozen=True, eq=False)
class FeatureWork:
    """For each edited hook point its SAE and the features to edit."""

    saes: Mapping[HookPoint, tuple[Sae, FeatureList]]
    together: bool
    with_means: bool

    @property
    def parents(self) -> list[Parent]:
        """The artifacts that feature lists come from."""
        artifacts = (listed.artifact for _, listed in self.saes.values())
        return list(dict.fromkeys(artifact.parent for artifact in artifacts if artifact is not None))

    @property
    def count(self) -> int:
        """How many features there are, over all SAEs."""
        return sum(len(listed.ids) for _, listed in self.saes.values())

    def identity(self) -> dict[str, Any]:
        """What decides the numbers, for fingerprints."""
        saes = {str(point): {"sae": sae.identity, "features": listed.ids} for point, (sae, listed) in self.saes.items()}
        return {"saes": saes, "together": self.together}

    def load(self, subjects: Subjects) -> dict[HookPoint, FeatureSubject]:
        """What the design needs. Raises StrataError where means are asked for, and the store has no train share."""
        found = {}
        for point, (sae, listed) in self.saes.items():
            places = tuple(range(len(listed.ids)))
            one_by_one = {str(feature): (place,) for place, feature in enumerate(listed.ids)}
            groups = {f"{len(places)} features": places} if self.together else one_by_one
            means = None
            if self.with_means:
                assert subjects.store is not None  # the config is refused where there is none
                means = latent_means(subjects.store, subjects, point, sae, listed.ids)
            found[point] = FeatureSubject(FeatureCodes(sae, tuple(listed.ids)), groups, means)
        return found


def prepare_features(config: CausalEvalConfig, stage: Stage, subjects: Subjects) -> FeatureWork | None:
    """Load and check the SAEs of all targets, and choose their features; None if no features are edited.

    Raises:
        StrataError: an SAE that is missing, reads another hook or does not fit the store; a feature list that is
            missing or of another SAE; no features named, and none scored.
    """
    if not config.edits_features:
        return None
    assert subjects.store is not None  # eval_mode=baselines is refused by the config
    layers = sorted({point.layer for point in subjects.targets})
    paired = load_saes(stage, config.sae, subjects.store, layers)
    saes: dict[HookPoint, tuple[Sae, FeatureList]] = {}
    for point in subjects.targets:
        sae, reads = paired[point.layer].sae, paired[point.layer].point
        if reads != point:
            raise StrataError(
                f"SAE {sae.source} reads {reads}, and the operators predict {point}: choose SAEs of {point.hook} "
                "(sae=...), or operators of the SAE's hook (hook=...)"
            )
        listed = list_features(stage, config.features, sae, len(subjects.targets), config.feature_scores)
        if not config.features.is_named and listed.artifact is None:
            raise StrataError(
                f"no features of SAE {sae.source} are named, and none are scored: name them with "
                "features.feature_ids=[12,40] or features.feature_ids_file=FILE, or run score_features.py"
            )
        saes[point] = sae, listed
    return FeatureWork(saes, config.features.mode == "together", "mean_features" in config.wanted)


def latent_means(
    store: ActivationStore, subjects: Subjects, point: HookPoint, sae: Sae, features: list[int]
) -> Float[Tensor, " feature"]:
    """Means of latents over the first counted tokens of the train share, which nothing is scored on."""
    split, wanted = subjects.splits[0], torch.tensor(features, dtype=torch.long, device=sae.device)
    total = torch.zeros(len(features), dtype=torch.float64)
    n_rows = 0
    for rows in rows_by_part(store, [point], split.groups, split.train):
        x = rows.activations[point][rows.is_counted][: _MEAN_ROWS - n_rows]
        n_rows += len(x)
        for part in active_features(sae, x.float(), wanted):
            total.index_add_(0, part.feature.cpu(), part.activation.double().cpu())
        if n_rows >= _MEAN_ROWS:
            break
    if not n_rows:
        raise StrataError(f"{store.path} has no counted token in its train share to take means of latents over")
    return (total / n_rows).float()
