"""Find the operators that were fitted on a store, and the split that they were fitted with."""

from src.activations.store import ActivationStore
from src.artifacts import Artifact, choose_artifact, list_artifacts
from src.config.stages import EvalConfig, SplitConfig
from src.errors import StrataError
from src.stage.context import Stage
from src.stage.stores import Split, split_store
from src.transport.pairs import LayerPair, layer_pairs
from src.transport.saved import SavedOperator, choose_operators


def find_operators(config: EvalConfig, stage: Stage, store: ActivationStore) -> dict[LayerPair, SavedOperator]:
    """The operators of the wanted pairs that were fitted on this store; StrataError if one is missing or ambiguous."""
    everything = config.eval.Ls == "all" and config.eval.ks == "all"
    keys = "eval.Ls, eval.ks"
    wanted = None if everything else layer_pairs(config.eval.Ls, config.eval.ks, store.layout.n_layers, keys)
    candidates = [
        artifact
        for artifact in list_artifacts(stage.root, "operators")
        if artifact.meta.parents == [store.artifact.parent]
        and config.method in (None, artifact.meta.summary["fitting"]["method"])
    ]
    if config.operators is not None or not candidates:
        remedy = "fit some with train_transport_operators.py"
        chosen = choose_artifact(stage.root, "operators", config.operators, candidates, key="operators", remedy=remedy)
        _refuse_other_store(chosen, store)
        candidates = [chosen]
    return choose_operators(candidates, wanted)


def _refuse_other_store(operators: Artifact, store: ActivationStore) -> None:
    if operators.meta.parents != [store.artifact.parent]:
        raise StrataError(
            f"{operators.path} was fitted on {operators.meta.parents[0].name}, not on {store.path.name}: its test "
            "sequences are not known here; name the store that it belongs to with activations=..."
        )


def split_of(store: ActivationStore, operators: dict[LayerPair, SavedOperator]) -> Split:
    """The split that all operators share; StrataError if they were fitted on different splits."""
    splits = {
        (tuple(saved.fitting["split"].items()), saved.fitting["cv_folds"], saved.artifact.meta.seed): saved
        for saved in operators.values()
    }
    if len(splits) > 1:
        names = ", ".join(saved.artifact.meta.name for saved in splits.values())
        raise StrataError(f"{names} were fitted on different splits: evaluate them one by one with operators=NAME")
    ((shares, n_folds, seed),) = splits
    return split_store(store, SplitConfig(**dict(shares)), n_folds, seed)
