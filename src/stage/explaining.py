"""explain_features.py from its work to cards: explanations that are fetched or asked for, and contexts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.activations.passes import store_hashes
from src.errors import NotApplicableError, StrataError
from src.features.explaining.cards import FeatureCard, LayerCards
from src.features.explaining.contexts import ContextSettings, count_firings, find_contexts
from src.features.explaining.explainer import AnswerCache, Endpoint, explain_features, explainer_prompt
from src.features.explaining.explanations import Explanation, NeuronpediaRows, gather_rows
from src.features.explaining.neuronpedia import Bucket, RemoteFile, listed_files
from src.features.explaining.web import Patience
from src.features.scores.logit_lens import nearest_features, promoted_tokens
from src.models import load_tokenizer
from src.models.unembedding import Unembedding, read_unembedding
from src.stage.context import Stage
from src.stage.explain_work import ExplainWork, LayerWork
from src.stage.models import load_model_of
from src.text.token_strings import token_strings

_TOKENS_SHOWN = 10


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
