"""Find what causal_eval.py tries: the operators of a model, of one method or of several, and the training means."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.activations.store import ActivationStore
from src.artifacts import Artifact, Parent, choose_artifact, list_artifacts, refuse_damaged
from src.artifacts.meta import flat
from src.causal.design import PairSubject
from src.config.causal import CausalEvalConfig, InterventionsConfig
from src.config.stages import SplitConfig
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel
from src.stage.context import Stage
from src.stage.operators import wanted_pairs, without_shifted_rows
from src.stage.stores import Split, is_of_model, split_store
from src.transport.pairs import LayerPair, layer_pairs
from src.transport.saved import SavedOperator, choose_operators, fit_settings, saved_pairs

_KEYS = "causal_eval.L, causal_eval.k"
_FIT = "fit some with train_transport_operators.py"

Saved = Mapping[LayerPair, Mapping[str, SavedOperator]]


@dataclass(frozen=True)
class Subjects:
    """What is to be tried, before anything large is loaded.

    saved: for each pair its operators, by the name that tells them apart; none where nothing needs them. tried: whether
    the operators themselves are tried, or only their training means used. hook: of source and target. store, splits:
    what the operators were fitted on, and how it was split for them.
    """

    saved: Saved
    tried: bool
    hook: str
    store: ActivationStore | None
    splits: tuple[Split, ...]

    @property
    def parents(self) -> list[Parent]:
        """The artifacts that the evaluation is made from."""
        return [artifact.parent for artifact in _artifacts(self.saved)]

    @property
    def targets(self) -> list[HookPoint]:
        """The hook points that are edited."""
        return list(dict.fromkeys(pair.target(self.hook).at(0) for pair in self.saved))

    @property
    def methods(self) -> str:
        """As in `ridge` or `ridge and jacobian`; empty if no operator is tried."""
        return " and ".join(dict.fromkeys(name for each in self.saved.values() for name in each)) if self.tried else ""

    def load(self, device: torch.device) -> dict[LayerPair, PairSubject]:
        """Operators on the device, and means."""
        return {pair: self._subject(pair, saved, device) for pair, saved in self.saved.items()}

    def _subject(self, pair: LayerPair, saved: Mapping[str, SavedOperator], device: torch.device) -> PairSubject:
        operators = {name: each.load().to(device) for name, each in saved.items()}
        means: dict[HookPoint, Tensor] = {}
        for each in saved.values():
            for point, mean in each.means().items():
                if not torch.allclose(mean, means.setdefault(point, mean), rtol=1e-4, atol=1e-6):
                    names = ", ".join(sorted({other.artifact.path.name for other in saved.values()}))
                    raise StrataError(
                        f"{names} were fitted on other rows (split, seed or position offsets), so that mean ablation "
                        "would not be the same for them: try each in a run of its own"
                    )
        source, target = pair.source(self.hook), pair.target(self.hook)
        return PairSubject(
            source.at(-pair.offset),
            target.at(0),
            operators if self.tried else {},
            means.get(source),
            means.get(target),
        )


def find_subjects(config: CausalEvalConfig, stage: Stage, n_layers: Callable[[], int]) -> Subjects:
    """The operators of the wanted pairs; with eval_mode=baselines only the training means, if `mean` is wanted.

    n_layers: of the model, asked for only where no store tells it.

    Raises:
        StrataError: operators that are wanted and missing, that were fitted on several stores or with several settings
            between which the user did not choose, or that are damaged.
    """
    tried = config.eval_mode == "pretrained"
    keys = config.causal_eval
    if not tried and "mean" not in config.wanted:
        if isinstance(keys.position_offsets, str):
            raise StrataError(
                "causal_eval.position_offsets=all means those of the operators, and eval_mode=baselines uses none: "
                "name them"
            )
        pairs = layer_pairs(keys.L, keys.k, n_layers(), _KEYS, keys.position_offsets)
        return Subjects({pair: {} for pair in pairs}, tried, config.hook or "resid_post", None, ())
    candidates = _candidates(config, stage)
    store = _store(config, stage, candidates)
    candidates = _of_store(config, candidates, store)
    saved = _side_by_side(_pools(config, candidates), config.causal_eval, store.layout.n_layers)
    artifacts = _artifacts(saved)
    if len(hooks := {fit_settings(artifact)["hook"] for artifact in artifacts}) > 1:
        raise StrataError(f"the operators are of several hooks ({', '.join(sorted(hooks))}): choose one with hook=...")
    for artifact in artifacts:
        refuse_damaged(artifact, "run its train_transport_operators.py command again, and it is made anew")
    splits = {json.dumps([fit_settings(it)[key] for key in ("split", "cv_folds", "seed")]): it for it in artifacts}
    return Subjects(saved, tried, hooks.pop(), store, tuple(_split(store, it) for it in splits.values()))


def refuse_other_model(model: LanguageModel, store: ActivationStore) -> None:
    """StrataError unless the store's activations are of these weights, in this dtype."""
    then, here = store.artifact.meta.identity["model"], model.identity()
    if then["dtype"] != here["dtype"]:
        raise StrataError(
            f"{store.path} holds activations of {model.config.name} in {then['dtype']}, and it runs in {here['dtype']} "
            f"now: set model.dtype={then['dtype']}"
        )
    if (then["architecture"], then["weights"]) != (here["architecture"], here["weights"]):
        raise StrataError(
            f"{store.path} holds activations of another model than {model.config.name} is now: its weights differ, so "
            "operators that were fitted on it mean nothing here; choose the store of this model with activations=..., "
            "or collect its activations and fit operators"
        )


def _candidates(config: CausalEvalConfig, stage: Stage) -> list[Artifact]:
    """Operators that the user named, or all of this model, of the wanted methods and hook."""
    methods = [config.method] if isinstance(config.method, str) else config.method
    if config.operators is None:
        found = [it for it in list_artifacts(stage.root, "operators") if is_of_model(it, config.model)]
        found = without_shifted_rows(found, config.causal_eval.position_offsets)
    else:
        names = [config.operators] if isinstance(config.operators, str) else config.operators
        found = [
            choose_artifact(stage.root, "operators", name, [], key="operators", remedy=_FIT)
            for name in dict.fromkeys(names)
        ]
    fitting = [
        artifact
        for artifact in found
        if (methods is None or fit_settings(artifact)["method"] in methods)
        and config.hook in (None, fit_settings(artifact)["hook"])
    ]
    if config.operators is not None and len(fitting) < len(found):
        other = next(artifact for artifact in found if artifact not in fitting)
        settings = fit_settings(other)
        raise StrataError(
            f"{other.path} was fitted with method={settings['method']} hook={settings['hook']}: leave out method=... "
            "and hook=..., or name other operators"
        )
    if not fitting:
        of_what = "".join(
            f" {key}={value}" for key, value in (("method", config.method), ("hook", config.hook)) if value
        )
        remedy = f"{_FIT} (model={config.model.name}{of_what})"
        if config.eval_mode == "baselines":
            remedy += ", for their training means, or do without: interventions=[identity,resample,zero]"
        choose_artifact(stage.root, "operators", None, [], key="operators", remedy=remedy)
    return fitting


def _store(config: CausalEvalConfig, stage: Stage, candidates: Sequence[Artifact]) -> ActivationStore:
    """The store that the operators were fitted on; where there are several, the one of the config's dataset."""
    if config.activations is not None:
        chosen = choose_artifact(stage.root, "activations", config.activations, [], key="activations", remedy="")
        if chosen.parent not in map(_store_parent, candidates):
            held = ", ".join(artifact.path.name for artifact in candidates)
            raise StrataError(f"none of the operators ({held}) was fitted on {chosen.path}: {_FIT} on it")
        return ActivationStore(chosen)
    parents = list(dict.fromkeys(map(_store_parent, candidates)))
    stores = [artifact for artifact in list_artifacts(stage.root, "activations") if artifact.parent in parents]
    if not stores:
        raise StrataError(
            f"{', '.join(parent.name for parent in parents)}, which the operators were fitted on, is not in "
            f"{stage.root / 'activations'}: without it nobody knows which documents they have seen; collect it again, "
            "or name it with activations=..."
        )
    dataset = config.dataset.model_dump(mode="json")
    of_dataset = [artifact for artifact in stores if artifact.meta.config["dataset"] == dataset]
    fitting = of_dataset if len(of_dataset) == 1 else stores
    return ActivationStore(choose_artifact(stage.root, "activations", None, fitting, key="activations", remedy=""))


def _of_store(config: CausalEvalConfig, candidates: Sequence[Artifact], store: ActivationStore) -> list[Artifact]:
    """The operators of a store; StrataError if the user has named one of another, whose text is not known here."""
    fitting = [artifact for artifact in candidates if _store_parent(artifact) == store.artifact.parent]
    others = [artifact for artifact in candidates if artifact not in fitting]
    if config.operators is not None and others:
        raise StrataError(
            f"{others[0].path} was fitted on {_store_parent(others[0]).name}, not on {store.path.name}: name operators "
            "of one store"
        )
    return fitting


def _store_parent(operators: Artifact) -> Parent:
    return next(parent for parent in operators.meta.parents if parent.kind == "activations")


def _pools(config: CausalEvalConfig, candidates: Sequence[Artifact]) -> list[list[Artifact]]:
    """Artifacts whose operators make one row of a table: those of one setting, or of one method.

    What the user named stands side by side, as do the methods of a list; else one table holds one kind of operators.
    Of baselines, which share what the training means are, the kind with the most pairs serves.
    """
    by_settings: dict[str, list[Artifact]] = {}
    by_method: dict[str, list[Artifact]] = {}
    for artifact in candidates:
        by_settings.setdefault(json.dumps(fit_settings(artifact), sort_keys=True), []).append(artifact)
        by_method.setdefault(fit_settings(artifact)["method"], []).append(artifact)
    if config.eval_mode == "baselines":
        return [max(by_settings.values(), key=lambda pool: sum(len(it.meta.identity["pairs"]) for it in pool))]
    if config.operators is not None:
        return list(by_settings.values())
    if isinstance(config.method, list):
        if missing := [method for method in config.method if method not in by_method]:
            raise StrataError(f"no operators of method {', '.join(missing)} were fitted on this store: {_FIT}")
        return [by_method[method] for method in dict.fromkeys(config.method)]
    return [list(candidates)]


def _side_by_side(pools: Sequence[Sequence[Artifact]], keys: InterventionsConfig, n_layers: int) -> Saved:
    chosen = []
    for pool in pools:
        there = {pair for artifact in pool for pair in saved_pairs(artifact)}
        wanted = wanted_pairs(keys.L, keys.k, keys.position_offsets, there, n_layers, _KEYS)
        chosen.append(choose_operators(pool, wanted))
    names = _names([next(iter(operators.values())).settings for operators in chosen])
    pairs = sorted({pair for operators in chosen for pair in operators})
    return {
        pair: {name: operators[pair] for name, operators in zip(names, chosen, strict=True) if pair in operators}
        for pair in pairs
    }


def _names(settings: Sequence[Mapping]) -> list[str]:
    """The method of each, and where several share it, the settings in which they differ."""
    names = []
    for each in settings:
        alike = [flat(other) for other in settings if other["method"] == each["method"]]
        own = flat(each)
        differing = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        names.append(", ".join([each["method"], *(f"{key}={json.dumps(own[key])}" for key in differing)]))
    return names


def _split(store: ActivationStore, operators: Artifact) -> Split:
    settings = fit_settings(operators)
    return split_store(store, SplitConfig(**settings["split"]), settings["cv_folds"], settings["seed"])


def _artifacts(saved: Saved) -> list[Artifact]:
    used: Iterable[SavedOperator] = (each for operators in saved.values() for each in operators.values())
    return list({each.artifact.path: each.artifact for each in used}.values())
