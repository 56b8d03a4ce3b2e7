"""Analyses of captured states alone."""

import torch

from src.report.finding import Finding
from src.report.lenses import states as show
from src.report.lenses.attention import AttentionView, attention_finding
from src.report.lenses.contributions import decomposition_finding
from src.report.lenses.matrices import cka_finding, cross_layer_finding
from src.scenarios.attended_places import attention_to_places, one_hot_places, places_of_keys
from src.scenarios.lenses.attention_rows import normalised_entropy, sink_share, visible_keys
from src.scenarios.lenses.cross_layer import convergence, cross_layer_cosine, without_mean
from src.scenarios.lenses.decomposition import decompose
from src.scenarios.lenses.items import Items
from src.scenarios.lenses.principal_components import pca_trajectories
from src.scenarios.lenses.similarity import FEWEST, linear_cka_matrices
from src.scenarios.lenses.spectra import spectrum
from src.scenarios.lenses.trajectories import liveliest, trajectories
from src.scenarios.states import ATTENTION
from src.stage.analysis.preparing import Work

_LIVELIEST = 6
# about the mean of fewer rows nothing can be told
_FEWEST_CENTRED = 3


def decomposition(work: Work) -> Finding:
    """The residual stream taken apart, at steps and messages."""
    return decomposition_finding(
        [(items, decompose(items.rows.take(items.places), work.n_layers)) for items in work.items]
    )


def neurons(work: Work) -> Finding:
    """The user's neurons, or the liveliest ones."""
    source, chosen = work.neuron_source, work.config.neurons
    if chosen is None:
        named = liveliest(work.steps.get(source, work.layers), work.layers, _LIVELIEST)
    else:
        named = [(layer, neuron) for layer, neuron in chosen]
    layers = work.steps.rows.layers
    values = [(items, trajectories(items.get(source), layers, named, source)) for items in work.items]
    return show.neurons_finding(source, named, values, chosen is None)


def cross_layer(work: Work) -> Finding:
    """Cosines of all layers with all others."""
    means = {}
    for items in work.items:
        states = items.get(work.source, work.layers)
        both = [cross_layer_cosine(states).mean(0)]
        if len(items) >= _FEWEST_CENTRED:
            both.append(cross_layer_cosine(without_mean(states)).mean(0))
        means[items.kind] = both
    return cross_layer_finding(work.source, work.layers, means)


def cka(work: Work) -> Finding:
    """CKA of all layers and sources, over steps, messages and reference texts, of which there are enough."""
    states = [(source, layer) for source in work.cka_sources for layer in work.layers]
    rows = {items.kind: [items.get(source, [layer])[0] for source, layer in states] for items in work.items}
    references = work.captured.references
    if references is not None and work.position is not None and work.position in references.rows:
        of = references.rows[work.position]
        if all(source in of for source in work.cka_sources) and set(work.layers) <= set(of.layers):
            whole = {source: of.get(source) for source in work.cka_sources}
            rows["references"] = [whole[source][of.layers.index(layer)] for source, layer in states]
    found = {kind: (len(each[0]), *linear_cka_matrices(each)) for kind, each in rows.items() if len(each[0]) >= FEWEST}
    return cka_finding(states, found)


def spectra(work: Work) -> Finding:
    """Spectra of the rows at each layer."""
    return show.spectrum_finding(
        work.source,
        work.layers,
        {items.kind: [spectrum(rows) for rows in items.get(work.source, work.layers)] for items in work.items},
    )


def pca(work: Work) -> Finding:
    """Paths through layers in one plane, and through steps and messages in a plane of each layer."""
    states = [(items, items.get(work.source, work.layers)) for items in work.items if len(items) > 1]
    return show.pca_finding(
        work.source,
        work.layers,
        [(items, pca_trajectories(found)) for items, found in states],
        [(items, [pca_trajectories(layer[None]) for layer in found]) for items, found in states],
    )


def settling(work: Work) -> Finding:
    """How much each layer changes the states, and where they settle."""
    found = []
    for items in work.items:
        states = items.get(work.source, work.layers)
        centred = convergence(without_mean(states), work.layers) if len(items) >= _FEWEST_CENTRED else None
        found.append((items, convergence(states, work.layers), centred))
    return show.convergence_finding(work.source, work.layers, found)


def attention(work: Work) -> Finding:
    """Entropy, sinks, and which message is read."""
    views = [_attention_view(work, items) for items in work.items if items.n_keys is not None]
    return attention_finding(views, work.position)


def _attention_view(work: Work, items: Items) -> AttentionView:
    assert items.n_keys is not None
    weights = items.get(ATTENTION, work.layers)
    visible = visible_keys(weights, torch.tensor(items.n_keys))
    run, after = work.run, work.run.generation.after
    ends, read = run.conversation.message_ends[:after], items.messages_read
    messages = [f"{index} {message.role}" for index, message in enumerate(run.conversation.messages[:after])]
    names = ["first token", *messages, "header and reply"]
    if min(ends) < 0:  # the template rewrites what was said before: nobody knows where a message stands
        ends, read, names = [], [0] * len(items), ["first token", "all else"]
    place_of_key = places_of_keys(ends, read, items.n_keys, weights.shape[-1])
    even = one_hot_places(place_of_key, len(names)).sum(1)
    return AttentionView(
        items,
        work.layers,
        visible,
        normalised_entropy(weights, visible),
        sink_share(weights),
        names,
        attention_to_places(weights, place_of_key, len(names)),
        even / even.sum(1, keepdim=True),
    )
