"""The feature part of eval.py: operators beside the SAEs of the layers that they predict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
import torch

from src.activations.passes import count_rows, rows_by_part
from src.activations.store import ActivationStore
from src.artifacts import Parent
from src.config.schema import fingerprint
from src.config.stages import EvalConfig
from src.errors import StrataError
from src.features.pairing import check_pairing
from src.features.predicting.pair_scores import FeatureScores, score_features
from src.features.predicting.prediction import ChosenFeatures, LinearPrediction, prediction_blocks, sum_features
from src.features.sae import Sae, is_there, load_sae, require_point
from src.hook_points import HookPoint
from src.report.feature_evaluation import FeatureReport
from src.stage.context import Stage
from src.stage.feature_lists import FeatureList, artifacts_of_sae, list_features
from src.stage.saes import is_one_for_each_layer
from src.stage.stores import Split
from src.transport.pairs import LayerPair
from src.transport.saved import SavedOperator

CARDS = "explanations"


@dataclass(frozen=True, eq=False)
class JudgedSae:
    """An SAE of a target layer, and which of its features are judged.

    cards: file of their cards, below artifacts/. carded: the features that have one there.
    """

    features: ChosenFeatures
    listed: FeatureList
    cards: str | None
    carded: frozenset[int]

    @property
    def sae(self) -> Sae:
        """The SAE."""
        return self.features.sae


@dataclass(frozen=True, eq=False)
class FeatureWork:
    """What is judged: the pairs of layers whose target has an SAE, by the target's hook point (without an offset)."""

    operators: Mapping[LayerPair, SavedOperator]
    saes: Mapping[HookPoint, JudgedSae]
    filter_inactive: bool

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers, for fingerprints."""
        saes = {
            str(point): {
                "sae": judged.sae.identity,
                "n_features": len(judged.listed.ids),
                "feature_ids": fingerprint(judged.listed.ids),
            }
            for point, judged in self.saes.items()
        }
        return {"saes": saes, "filter_inactive_features": self.filter_inactive}

    @property
    def parents(self) -> list[Parent]:
        """The artifacts that the feature lists come from."""
        artifacts = [judged.listed.artifact for judged in self.saes.values()]
        return list(dict.fromkeys(artifact.parent for artifact in artifacts if artifact is not None))

    def target_of(self, pair: LayerPair) -> HookPoint:
        """Where the SAE of a pair reads."""
        return _target(pair, self.operators[pair])


def prepare_features(
    config: EvalConfig, stage: Stage, store: ActivationStore, operators: Mapping[LayerPair, SavedOperator]
) -> FeatureWork:
    """Load the SAEs of all targets, check each against the store's activations, and choose their features.

    Targets that no local SAE belongs to are passed over, and the user is told.

    Raises:
        StrataError: no SAE of any target, an SAE that reads another hook or does not fit (see `check_pairing`), or a
            feature list that is missing, damaged or of another SAE.
    """
    targets = list(dict.fromkeys(_target(pair, saved) for pair, saved in operators.items()))
    saes = _load(config, stage, targets)
    judged: dict[HookPoint, JudgedSae] = {}
    for target, sae in saes.items():
        check_pairing(sae, store, target, max_fvu=config.sae.max_fvu)
        listed = list_features(stage, config.features, sae, len(saes), config.feature_scores)
        chosen = ChosenFeatures(sae, torch.tensor(listed.ids, dtype=torch.long))
        judged[target] = JudgedSae(chosen, listed, *_cards(stage, sae, listed.ids))
    covered = {pair: saved for pair, saved in operators.items() if _target(pair, saved) in judged}
    if lacking := [str(target) for target in targets if target not in judged]:
        stage.say(f"no SAE for {', '.join(lacking)}: operators that lead there are judged without features")
    return FeatureWork(covered, judged, config.features.filter_inactive_features)


def _target(pair: LayerPair, saved: SavedOperator) -> HookPoint:
    return pair.target(saved.settings["hook"]).at(0)


def _load(config: EvalConfig, stage: Stage, targets: list[HookPoint]) -> dict[HookPoint, Sae]:
    if not is_one_for_each_layer(config.sae):
        sae = load_sae(config.sae, stage.device)
        found = {target: sae for target in targets if target in _read_by(sae)}
        if not found:
            raise StrataError(
                f"SAE {sae.source} reads {require_point(sae)}, and the operators predict "
                f"{', '.join(map(str, targets))}: choose an SAE of one of these (sae=...)"
            )
        return found
    there = [target for target in targets if is_there(config.sae, target.layer)]
    return {target: _sae_of(config, stage, target) for target in there or targets[:1]}


def _sae_of(config: EvalConfig, stage: Stage, target: HookPoint) -> Sae:
    sae = load_sae(config.sae, stage.device, target.layer)
    if target not in _read_by(sae) and require_point(sae).hook == "resid_pre":
        # that of the next layer reads the output of this one
        sae = load_sae(config.sae, stage.device, target.layer + 1)
    if target not in _read_by(sae):
        raise StrataError(
            f"SAE {sae.source} reads {require_point(sae)}, and the operators predict {target}: choose SAEs of that "
            "hook (sae=...)"
        )
    return sae


def _read_by(sae: Sae) -> list[HookPoint]:
    """The hook point that an SAE reads, in both spellings: the input of a block is the output of the one before."""
    point = require_point(sae)
    is_input = point.hook == "resid_pre" and point.layer
    return [point, HookPoint("resid_post", point.layer - 1)] if is_input else [point]


def _cards(stage: Stage, sae: Sae, wanted: list[int]) -> tuple[str | None, frozenset[int]]:
    """The file that has cards of most of the wanted features (of equal ones the latest), and which have one there."""
    layer = require_point(sae).layer
    name = f"feature_cards_{layer}.html"
    best: tuple[str | None, frozenset[int]] = (None, frozenset())
    for artifact in artifacts_of_sae(stage.root, CARDS, sae):
        table = artifact.path / "features.parquet"
        if not (artifact.path / name).is_file() or not table.is_file():
            continue
        there = pq.read_table(table, columns=["feature"], filters=[("layer", "=", layer)])["feature"].to_pylist()
        carded = frozenset(there) & frozenset(wanted)
        if len(carded) > len(best[1]):
            best = f"{CARDS}/{artifact.path.name}/{name}", carded
    return best


def judge_features(work: FeatureWork, store: ActivationStore, split: Split, stage: Stage) -> FeatureReport:
    """Score every feature of every pair on the test share, on the rows that the residual metrics are of."""
    settings = next(iter(work.operators.values())).settings
    offsets = settings["row_offsets"]
    scores: dict[LayerPair, FeatureScores] = {}
    passes = [
        (judged.features, block)
        for target, judged in work.saes.items()
        for pairs in _pairs_of(work, target)
        for block in prediction_blocks(pairs, len(judged.features.ids))
    ]
    n_rows = int(count_rows(store, split.groups, split.n_groups, offsets)[split.test])
    total = n_rows * sum(len(block) for _, block in passes)
    with stage.progress("features", total, "tokens x pairs") as advance:
        for features, block in passes:
            predictions = {pair: _prediction(work.operators[pair]) for pair in block}
            points = [point for each in predictions.values() for point in (each.source, each.target)]
            store.require(points)
            rows = rows_by_part(store, points, split.groups, [split.test], split.documents, offsets)
            sums = sum_features(features, predictions, rows, stage.device, settings["precision"], advance)
            scores |= {pair: score_features(features.ids, of_pair) for pair, of_pair in sums.items()}
    return FeatureReport(
        {pair: scores[pair] for pair in work.operators},
        "active" if work.filter_inactive else "all",
        {target.layer: judged.listed.source for target, judged in work.saes.items()},
        {target.layer: judged.cards for target, judged in work.saes.items() if judged.cards},
        {target.layer: judged.carded for target, judged in work.saes.items()},
    )


def _pairs_of(work: FeatureWork, target: HookPoint) -> list[list[LayerPair]]:
    """The pairs that lead to a target, those of each position offset apart: they predict other rows."""
    pairs = [pair for pair in work.operators if work.target_of(pair) == target]
    return [
        [pair for pair in pairs if pair.offset == offset] for offset in dict.fromkeys(each.offset for each in pairs)
    ]


def _prediction(saved: SavedOperator) -> LinearPrediction:
    operator, means = saved.load(), saved.means()
    source, target = operator.source, operator.target
    return LinearPrediction(source, target, operator.weight, operator.bias, means[source], means[target])
