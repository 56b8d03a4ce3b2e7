"""Transport operators to the last layer, for a lens that maps states before it reads them."""

from collections.abc import Sequence

from src.artifacts import Artifact, choose_artifact, list_artifacts, refuse_damaged
from src.config.analyse_run import AnalyseRunConfig
from src.errors import StrataError
from src.scenarios.storage.run_folder import CapturedScenario
from src.stage.context import Stage
from src.stage.operators import without_shifted_rows
from src.transport.pairs import LayerPair
from src.transport.saved import SavedOperator, choose_operators, fit_settings, saved_pairs

_HOOK = "resid_post"


def find_lens_operators(
    config: AnalyseRunConfig, stage: Stage, captured: CapturedScenario, layers: Sequence[int]
) -> dict[int, SavedOperator]:
    """Operators resid_post of L -> resid_post of the last layer, by L, of the layers that there are some for.

    Raises:
        StrataError: none was fitted on activations of this very model, or several that differ in their settings.
    """
    last = int(captured.model["n_layers"]) - 1
    wanted = {LayerPair(layer, last - layer) for layer in layers if layer < last}
    name = captured.model["name"]
    remedy = (
        f"fit them on activations of {name}: collect_activations.py and train_transport_operators.py with "
        "experiment.L=all experiment.k=all; or use lens=logit"
    )
    if config.operators is None:
        every = list_artifacts(stage.root, "operators")
        candidates = [artifact for artifact in every if _is_of(artifact, captured, stage)]
    else:
        names = [config.operators] if isinstance(config.operators, str) else config.operators
        candidates = [choose_artifact(stage.root, "operators", it, [], key="operators", remedy=remedy) for it in names]
        for artifact in candidates:
            if not _is_of(artifact, captured, stage):
                raise StrataError(
                    f"{artifact.path} was not fitted on activations of {name} as it was captured (other weights, or "
                    f"its store is not in {stage.root / 'activations'}): {remedy}"
                )
    candidates = [
        artifact
        for artifact in without_shifted_rows(candidates, 0)
        if fit_settings(artifact)["hook"] == _HOOK and config.method in (None, fit_settings(artifact)["method"])
    ]
    there = sorted({pair for artifact in candidates for pair in saved_pairs(artifact)} & wanted)
    if not there:
        method = f" of method={config.method}" if config.method else ""
        raise StrataError(f"no operators{method} to the last layer ({last}) of {name} were found: {remedy}")
    chosen = choose_operators(candidates, there)
    for artifact in {saved.artifact.path: saved.artifact for saved in chosen.values()}.values():
        refuse_damaged(artifact, "run its train_transport_operators.py command again, and it is made anew")
    return {pair.L: saved for pair, saved in chosen.items()}


def _is_of(operators: Artifact, captured: CapturedScenario, stage: Stage) -> bool:
    """Whether operators were fitted on activations of the weights that a scenario was captured with."""
    parents = [parent for parent in operators.meta.parents if parent.kind == "activations"]
    stores = [store for store in list_artifacts(stage.root, "activations") if store.parent in parents]
    keys = ("architecture", "weights")
    return any(
        all(store.meta.identity["model"].get(key) == captured.model.get(key) for key in keys) for store in stores
    )
