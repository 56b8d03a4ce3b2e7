"""explain_features.py from a config to cards: which features, from which SAEs, explained by whom."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.activations.passes import store_hashes
from src.activations.store import ActivationStore
from src.artifacts import Artifact, Parent, choose_artifact, content_digest, refuse_damaged
from src.config.explain_features import ExplainConfig
from src.errors import NotApplicableError, StrataError
from src.features.explaining.cards import FeatureCard, LayerCards
from src.features.explaining.contexts import ContextSettings, count_firings, find_contexts
from src.features.explaining.explainer import PROMPT_VERSION, AnswerCache, Endpoint, explain_features, explainer_prompt
from src.features.explaining.explanations import Explanation, NeuronpediaRows, gather_rows
from src.features.explaining.neuronpedia import Bucket, RemoteFile, listed_files
from src.features.explaining.web import Patience
from src.features.feature_ids import ListedFeatures, read_listed_features
from src.features.scores.logit_lens import nearest_features, promoted_tokens
from src.models import load_tokenizer
from src.models.unembedding import Unembedding, read_unembedding
from src.stage.context import Stage
from src.stage.models import load_model_of
from src.stage.saes import PairedSae, load_saes
from src.stage.stores import find_store
from src.text.token_strings import token_strings

_TOKENS_SHOWN = 10


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


@dataclass(frozen=True, eq=False)
class Explained:
    """What the stage found. rows: Neuronpedia's, by layer. strings: of all tokens on the cards."""

    layers: list[LayerCards]
    rows: dict[int, NeuronpediaRows]
    strings: dict[int, str]


def explain(work: ExplainWork, stage: Stage) -> Explained:
    """Fetch explanations, read the store, and ask the explainer, where these are wanted.

    Raises:
        StrataError: a server out of reach, a damaged download, a model that the store was not collected with.
    """
    # the network first: it fails sooner than a pass over a store takes
    rows = {it.layer: _from_neuronpedia(work, it, stage) for it in work.layers if it.neuronpedia is not None}
    if not work.config.cards:
        return Explained([_without_cards(it, rows[it.layer], work.config.max_features) for it in work.layers], rows, {})
    unembedding, d_vocab, tokenizer = _vocabulary(work, stage)
    layers = [_layer_cards(work, it, unembedding, d_vocab, rows.get(it.layer), stage) for it in work.layers]
    strings = token_strings(tokenizer, (token for it in layers for card in it.cards for token in card.token_ids()))
    if work.endpoint is not None:
        layers = _asked(work, work.endpoint, layers, strings, stage)
    return Explained(layers, rows, strings)


def _from_neuronpedia(work: ExplainWork, layer: LayerWork, stage: Stage) -> NeuronpediaRows:
    config = work.config
    assert layer.neuronpedia is not None
    bucket = Bucket(config.neuronpedia.url, Patience(config.neuronpedia.attempts, config.neuronpedia.timeout))
    folder = Path(config.cache_dir).expanduser()
    files, from_cache = listed_files(bucket, *layer.neuronpedia, folder)
    if from_cache:
        stage.warn(f"Neuronpedia is out of reach: the explanations of layer {layer.layer} come from {folder}")
    size = sum(file.size for file in files)
    name = "/".join(layer.neuronpedia)
    stage.say(f"Neuronpedia has {len(files)} files of explanations of {name}, {size / 1e6:,.1f} MB; cache: {folder}")
    with stage.progress(f"explanations of layer {layer.layer}", size, "bytes") as advance:

        def downloaded(files: list[RemoteFile]) -> Iterator[Path]:
            for file in files:
                yield bucket.download(file, folder, advance)

        stops = not config.neuronpedia.all_explanations
        return gather_rows(downloaded(files), layer.features, stop_when_found=stops)


def _without_cards(layer: LayerWork, rows: NeuronpediaRows, max_features: int | None) -> LayerCards:
    features = layer.features if layer.features is not None else sorted(rows.rows)[:max_features]
    cards = [_card(layer, feature, rows) for feature in features]
    return LayerCards(layer.layer, cards, sae="/".join(layer.neuronpedia or ()))


def _card(layer: LayerWork, feature: int, rows: NeuronpediaRows | None, **more: Any) -> FeatureCard:
    explanations = () if rows is None else tuple(rows.explanations(feature))
    scores = {} if layer.listed is None else layer.listed.scores_of(feature)
    return FeatureCard(feature, explanations, scores=scores, **more)


def _vocabulary(work: ExplainWork, stage: Stage) -> tuple[Unembedding | None, int, Any]:
    """The map to logits, if words are wanted and the model predicts any; how many tokens there are; the tokenizer."""
    config, store = work.config, work.store
    assert store is not None
    tokenizer = load_tokenizer(config.model)
    unembedding = None
    if config.promoted:
        try:
            unembedding = read_unembedding(load_model_of(store, config.model, stage))
        except NotApplicableError as error:
            stage.warn(f"cards have no promoted and suppressed words: {error}")
    return unembedding, len(tokenizer), tokenizer


def _layer_cards(
    work: ExplainWork,
    layer: LayerWork,
    unembedding: Unembedding | None,
    d_vocab: int,
    rows: NeuronpediaRows | None,
    stage: Stage,
) -> LayerCards:
    config, store = work.config, work.store
    assert store is not None
    assert layer.sae is not None
    sae, point = layer.sae.sae, layer.sae.point
    features = layer.features
    n_tokens = store.layout.n_tokens
    if features is None:
        with stage.progress(f"firings of layer {layer.layer}", n_tokens, "tokens") as advance:
            firings = count_firings(sae, store, point, advance)
        by_rate = firings.argsort(descending=True, stable=True)
        features = [int(it) for it in by_rate[: config.max_features] if firings[it] > 0]
        if not features:
            raise StrataError(f"no feature of {sae.source} fires on any counted token of {store.path}")
    settings = ContextSettings(**config.contexts.model_dump())
    documents = np.unique(store_hashes(store, config.seed), return_inverse=True)[1]
    with stage.progress(f"contexts of layer {layer.layer}", n_tokens, "tokens") as advance:
        activities, firings = find_contexts(
            sae, store, point, features, documents, settings, config.seed, advance, _TOKENS_SHOWN
        )
    lens = [None] * len(features)
    if unembedding is not None:
        lens = promoted_tokens(sae, features, unembedding, config.promoted, d_vocab)
    near = nearest_features(sae, features, config.neighbours) if config.neighbours else [[] for _ in features]
    cards = [
        _card(layer, feature, rows, activity=activity, promoted=words, neighbours=tuple(others))
        for feature, activity, words, others in zip(features, activities, lens, near, strict=True)
    ]
    return LayerCards(layer.layer, cards, sae.source, str(point), firings, activities[0].n_tokens)


def _asked(
    work: ExplainWork, endpoint: Endpoint, layers: list[LayerCards], strings: Mapping[int, str], stage: Stage
) -> list[LayerCards]:
    """The cards with the explainer's explanations; the user is told first what will be sent."""
    config = work.config.explainer
    cache = AnswerCache(Path(work.config.cache_dir).expanduser() / "explainer", endpoint)
    prompts = {
        it.layer: {
            card.feature: explainer_prompt(card.activity, strings, card.promoted, config.contexts)
            for card in it.cards
            if card.activity is not None and card.activity.firings
        }
        for it in layers
    }
    every = [prompt for of_layer in prompts.values() for prompt in of_layer.values()]
    new = [prompt for prompt in every if cache.find(endpoint.body(prompt)) is None]
    stage.say(
        f"the explainer is asked {len(new):,} times ({len(every) - len(new):,} answers are cached): excerpts of "
        f"{work.config.dataset.dataset_name}, {sum(map(len, new)):,} characters in all, go to {endpoint.base_url} "
        f"({endpoint.model})"
    )
    found = []
    with stage.progress("explaining", len(new), "features") as advance:
        for it in layers:
            asked = explain_features(endpoint, prompts[it.layer], cache, config.concurrency, advance)
            said = {explanation.feature: explanation for explanation in asked.explanations}
            if asked.failed:
                feature, reason = next(iter(asked.failed.items()))
                stage.warn(
                    f"{len(asked.failed)} features of layer {it.layer} got no usable answer (feature {feature}: "
                    f"{reason}); overwrite=true asks for these again"
                )
            cards = [_with_explanation(card, said.get(card.feature)) for card in it.cards]
            found.append(replace(it, cards=cards))
    return found


def _with_explanation(card: FeatureCard, explanation: Explanation | None) -> FeatureCard:
    return card if explanation is None else replace(card, explanations=(*card.explanations, explanation))
