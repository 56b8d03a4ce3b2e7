"""What explain_features.py has to do: which features, of which SAEs, explained by whom."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.activations.store import ActivationStore
from src.artifacts import Artifact, Parent, choose_artifact, content_digest, refuse_damaged
from src.config.explain_features import ExplainConfig
from src.errors import StrataError
from src.features.explaining.explainer import PROMPT_VERSION, Endpoint
from src.features.explaining.web import Patience
from src.features.feature_ids import ListedFeatures, read_listed_features
from src.stage.context import Stage
from src.stage.saes import PairedSae, load_saes
from src.stage.stores import find_store


@dataclass(frozen=True, eq=False)
class LayerWork:
    """What there is to do for a layer.

    features: the wanted ones, best first; None = the most frequent (or, without cards, all that Neuronpedia has).
    listed: scores that are shown. neuronpedia: (model, SAE) as Neuronpedia names them.
    """

    layer: int
    sae: PairedSae | None
    features: list[int] | None
    listed: ListedFeatures | None
    scores_digest: str | None
    neuronpedia: tuple[str, str] | None

    def identity(self) -> dict[str, Any]:
        """What decides the layer's cards, for the fingerprint."""
        return {
            "sae": None if self.sae is None else self.sae.sae.identity,
            "features": self.features,
            "scores": self.scores_digest,
            "neuronpedia": None if self.neuronpedia is None else "/".join(self.neuronpedia),
        }


@dataclass(frozen=True, eq=False)
class ExplainWork:
    """All that the stage needs. store: None without cards."""

    config: ExplainConfig
    store: ActivationStore | None
    layers: list[LayerWork]
    scores: Artifact | None
    endpoint: Endpoint | None

    @property
    def parents(self) -> list[Parent]:
        """The artifacts that the cards are made from."""
        return [] if self.store is None else [self.store.artifact.parent]

    @property
    def which(self) -> str:
        """The layer, or how many there are."""
        return f"layer-{self.layers[0].layer}" if len(self.layers) == 1 else f"{len(self.layers)}-layers"

    def identity(self) -> dict[str, Any]:
        """What decides the content beside the store, for the fingerprint."""
        config, explainer = self.config, self.config.explainer
        asked = ("base_url", "model", "contexts", "temperature", "max_tokens")
        cards = {"contexts": config.contexts.model_dump(), "promoted": config.promoted, "neighbours": config.neighbours}
        bucket = {"url": config.neuronpedia.url, "all_explanations": config.neuronpedia.all_explanations}
        return {
            "layers": {str(work.layer): work.identity() for work in self.layers},
            "max_features": config.max_features,
            "cards": {**cards, "seed": config.seed} if config.cards else None,
            "neuronpedia": bucket if config.sae_path is not None else None,
            "explainer": None
            if self.endpoint is None
            else {"prompt": PROMPT_VERSION, **{key: getattr(explainer, key) for key in asked}},
        }


def prepare(config: ExplainConfig, stage: Stage) -> ExplainWork:
    """Find the store, the SAEs and the lists of features. Nothing is asked of any server.

    Raises:
        StrataError: a list of features that is missing, malformed or beyond the SAE; no key where one was promised; as
            `find_store` and `load_saes` do.
    """
    endpoint = _endpoint(config)
    layers = config.wanted_layers
    # a slip in a file is told before SAEs are loaded
    known = [layers] if isinstance(layers, int) else layers if isinstance(layers, list) else []
    for layer in known:
        _file_list(config, layer)
    scores = _scores_artifact(config, stage)
    store, saes = None, dict[int, PairedSae | None]()
    if config.cards:
        store = find_store(stage, config.activations, config.model, config.dataset)
        saes.update(load_saes(stage, config.sae, store, layers))
    else:
        saes.update(dict.fromkeys(known))
    works = [_layer_work(config, layer, sae, scores) for layer, sae in saes.items()]
    return ExplainWork(config, store, works, scores, endpoint)


def _endpoint(config: ExplainConfig) -> Endpoint | None:
    explainer = config.explainer
    if explainer.kind == "none":
        return None
    key = None
    if explainer.api_key_env is not None:
        key = os.environ.get(explainer.api_key_env, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise StrataError(
                f"the environment variable {explainer.api_key_env} holds no key for the explainer: export it, or set "
                "explainer.api_key_env=null for a server without keys"
            )
    assert explainer.base_url is not None
    assert explainer.model is not None
    patience = Patience(explainer.attempts, explainer.timeout)
    return Endpoint(explainer.base_url, explainer.model, key, explainer.temperature, explainer.max_tokens, patience)


def _file_list(config: ExplainConfig, layer: int) -> tuple[ListedFeatures, str] | None:
    """The list that the user's file has for a layer, and a digest of it."""
    if config.feature_ids_file is None:
        return None
    path = Path(config.feature_ids_file.replace("{layer}", str(layer))).expanduser()
    return read_listed_features(path), content_digest([path])


def _scores_artifact(config: ExplainConfig, stage: Stage) -> Artifact | None:
    if config.feature_scores is None:
        return None
    chosen = config.feature_scores
    found = choose_artifact(stage.root, "feature_scores", chosen, [], key="feature_scores", remedy="")
    refuse_damaged(found, "run score_features.py again, and it is made anew")
    return found


def _layer_work(config: ExplainConfig, layer: int, sae: PairedSae | None, scores: Artifact | None) -> LayerWork:
    listed = _file_list(config, layer)
    by_id = config.features
    if listed is not None:
        by_id = listed[0].ids
    elif scores is not None:
        path = scores.path / f"feature_scores_{layer}.json"
        if not path.is_file():
            raise StrataError(f"{scores.path} has no scores of layer {layer}: choose other layers, or score this one")
        listed = read_listed_features(path), content_digest([path])
        by_id = by_id or listed[0].ids
    if by_id is not None:
        by_id = list(dict.fromkeys(by_id))[: config.max_features]
        n_features = None if sae is None else sae.sae.n_features
        if n_features is not None and max(by_id) >= n_features:
            raise StrataError(
                f"feature {max(by_id)} is beyond the {n_features:,} features of {sae.sae.source if sae else ''}: the "
                "ids belong to another SAE"
            )
    feature_list, digest = (None, None) if listed is None else listed
    return LayerWork(layer, sae, by_id, feature_list, digest, _neuronpedia_name(config, layer, sae))


def _neuronpedia_name(config: ExplainConfig, layer: int, sae: PairedSae | None) -> tuple[str, str] | None:
    if config.sae_path is None:
        return None
    if config.sae_path == "auto":
        known = sae.sae.module.cfg.metadata.get("neuronpedia_id") if sae is not None else None
        if not known or known.count("/") != 1:
            raise StrataError(
                f"SAELens knows no Neuronpedia id of the SAE of layer {layer}: set sae_path, e.g. "
                "{layer}-gemmascope-res-16k, or null"
            )
        model, path = known.split("/")
        return model, path
    model = config.neuronpedia.model or config.model.name.rsplit("/", 1)[-1]
    return model, config.sae_path.replace("{layer}", str(layer))
