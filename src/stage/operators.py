"""Find the operators that were fitted on a store, and judge them on the share of it that they were not fitted on."""

from collections.abc import Collection
from typing import Literal

import torch

from src.activations.passes import rows_by_part
from src.activations.store import ActivationStore
from src.artifacts import Artifact, choose_artifact, list_artifacts, refuse_damaged
from src.config.stages import EvalConfig, Layers, Leaps, Offsets, SplitConfig
from src.errors import StrataError
from src.stage.context import Stage
from src.stage.stores import Split, split_store
from src.transport.bootstrap import DocumentBootstrap
from src.transport.evaluate import PairEvaluation, judge_pairs, memory_blocks
from src.transport.pairs import LayerPair, layer_pairs
from src.transport.saved import SavedOperator, choose_operators, fit_settings, saved_pairs


def find_operators(config: EvalConfig, stage: Stage, store: ActivationStore) -> dict[LayerPair, SavedOperator]:
    """The operators of the wanted pairs that were fitted on this store; StrataError if one is missing or unlike."""
    candidates = [
        artifact
        for artifact in list_artifacts(stage.root, "operators")
        if artifact.meta.parents == [store.artifact.parent]
        and config.method in (None, fit_settings(artifact).get("method"))
    ]
    candidates = without_shifted_rows(candidates, config.eval.position_offsets)
    if config.operators is not None or not candidates:
        remedy = "fit some with train_transport_operators.py"
        names = config.operators if isinstance(config.operators, list) else [config.operators]
        candidates = [
            choose_artifact(stage.root, "operators", name, candidates, key="operators", remedy=remedy)
            for name in dict.fromkeys(names)
        ]
        for chosen in candidates:
            _refuse_other_store(chosen, store)
            _refuse_other_method(chosen, config.method)
    there = {pair for artifact in candidates for pair in saved_pairs(artifact)}
    wanted = config.eval.Ls, config.eval.ks, config.eval.position_offsets
    found = choose_operators(candidates, wanted_pairs(*wanted, there, store.layout.n_layers, "eval.Ls, eval.ks"))
    for artifact in {saved.artifact.path: saved.artifact for saved in found.values()}.values():
        refuse_damaged(artifact, "run its train_transport_operators.py command again, and it is made anew")
    return found


def without_shifted_rows(artifacts: list[Artifact], offsets: Offsets | Literal["all"]) -> list[Artifact]:
    """The artifacts that were fitted on all rows, if offset 0 alone is asked for and there are such; else all.

    Beside other offsets an operator of offset 0 is fitted on fewer rows, and is another one.
    """
    if offsets not in (0, [0]):
        return artifacts
    return [it for it in artifacts if fit_settings(it)["row_offsets"] == [0]] or artifacts


def wanted_pairs(
    layers: Layers,
    leaps: Leaps,
    offsets: Offsets | Literal["all"],
    there: Collection[LayerPair],
    n_layers: int,
    key: str,
) -> list[LayerPair] | None:
    """The pairs that a config asks for, given those that there are operators of; None = all of these.

    Where a key is `all`, it stands for whatever operators there are. key: the config keys of layers and leaps, for
    messages, in the section that has `position_offsets` too. Raises StrataError for layers that the model does not
    have, and where no operator is of the layers, leaps or offsets that are named.
    """
    if not isinstance(offsets, str) and "all" not in (layers, leaps):
        return layer_pairs(layers, leaps, n_layers, key, offsets)
    if (layers, leaps, offsets) == ("all", "all", "all"):
        return None
    room = {(pair.L, pair.k) for pair in layer_pairs(layers, leaps, n_layers, key)}
    in_place = [pair for pair in sorted(there) if (pair.L, pair.k) in room]
    if "all" not in (layers, leaps):  # of every pair that is named something is wanted
        lacking = room - {(pair.L, pair.k) for pair in in_place}
        in_place += [LayerPair(*numbers) for numbers in sorted(lacking)]
    section, layer_key, leap_key = key.partition(".")[0], *key.split(", ")
    if not in_place:
        held = ", ".join(map(str, sorted(there))) or "none"
        raise StrataError(
            f"no operator is of {layer_key}={_told(layers)} and {leap_key}={_told(leaps)} (there: {held})"
        )
    if isinstance(offsets, str):
        return in_place
    chosen, held = {offsets} if isinstance(offsets, int) else set(offsets), {pair.offset for pair in in_place}
    if lacking := sorted(chosen - held):
        raise StrataError(
            f"{section}.position_offsets: no operator has offset {', '.join(map(str, lacking))} (there: "
            f"{', '.join(map(str, sorted(held)))}); fit it with experiment.position_offset={lacking[0]}"
        )
    return [pair for pair in in_place if pair.offset in chosen]


def _told(values: Layers | Leaps) -> str:
    return str(values).replace(" ", "")


def _refuse_other_store(operators: Artifact, store: ActivationStore) -> None:
    if operators.meta.parents != [store.artifact.parent]:
        raise StrataError(
            f"{operators.path} was fitted on {operators.meta.parents[0].name}, not on {store.path.name}: its test "
            "documents are not known here; name the store that it belongs to with activations=..."
        )


def _refuse_other_method(operators: Artifact, method: str | None) -> None:
    fitted = fit_settings(operators)["method"]
    if method not in (None, fitted):
        raise StrataError(f"{operators.path} was fitted with method={fitted}: leave out method={method}")


def split_of(store: ActivationStore, operators: dict[LayerPair, SavedOperator]) -> Split:
    """The split that the operators, which share their settings, were fitted with."""
    settings = next(iter(operators.values())).settings
    return split_store(store, SplitConfig(**settings["split"]), settings["cv_folds"], settings["seed"])


def judge_operators(
    operators: dict[LayerPair, SavedOperator],
    store: ActivationStore,
    split: Split,
    bootstrap: DocumentBootstrap,
    device: torch.device,
    stage: Stage,
) -> dict[LayerPair, PairEvaluation]:
    """Score all operators on the test share: in one pass, or in several where their sums do not fit into memory.

    All of them on the same rows: those that have counted tokens at every offset that the operators were fitted with.
    """
    means = {point: mean for saved in operators.values() for point, mean in saved.means().items()}
    row_offsets = next(iter(operators.values())).settings["row_offsets"]
    blocks = memory_blocks(list(operators), store.layout.d_model, bootstrap.replicates)
    if len(blocks) > 1:
        stage.say(f"{len(operators)} pairs are judged in {len(blocks)} passes over the test share, to bound the memory")
    evaluations: dict[LayerPair, PairEvaluation] = {}
    with stage.progress("evaluating", None, "tokens") as advance:
        for block in blocks:
            loaded = {pair: operators[pair].load() for pair in block}
            points = [point for operator in loaded.values() for point in (operator.source, operator.target)]
            store.require(points)
            test = rows_by_part(store, points, split.groups, [split.test], split.documents, row_offsets)
            evaluations |= judge_pairs(loaded, means, test, bootstrap, device, advance)
    return evaluations
