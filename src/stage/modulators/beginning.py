"""modulator.init: where the training of a modulator begins."""

import torch

from src.models.loading import load_tokenizer
from src.models.token_table import token_table
from src.modulators.beginning.beginning import Beginning, random_beginning, with_vectors
from src.modulators.beginning.begun import Begun
from src.modulators.beginning.lexical import LexicalVectors, lexical_vectors, words_at
from src.modulators.beginning.procrustes import MapQuality, fit_map, map_quality, with_map
from src.modulators.beginning.simplices import principal_parts, simplex_vectors
from src.stage.context import Stage
from src.stage.modulators.word_states import read_word_states
from src.stage.modulators.work import ModulatorWork

# maps of shuffled anchors
_SHUFFLES = 199


def begin(work: ModulatorWork, stage: Stage, seed: int) -> Begun:
    """What modulator.init says, made once for each seed; all runs of a seed begin with the same.

    Raises:
        StrataError: what can't be begun with this model, these words or this text.
    """
    if seed not in work.begun:
        work.begun[seed] = _begin(work, stage, seed)
    return work.begun[seed]


def _begin(work: ModulatorWork, stage: Stage, seed: int) -> Begun:
    keys = work.config.modulator
    if keys.kind == "field":
        return Begun() if keys.init == "random" else _lexical(work, stage, seed, None)
    start = random_beginning(len(_embeddings(work)), work.model.d_model, keys.residual.width, seed)
    if keys.init == "random":
        return Begun(start)
    return _simplices(work, start) if keys.init == "simplices" else _lexical(work, stage, seed, start)


def _embeddings(work: ModulatorWork) -> torch.Tensor:
    return work.model.embedding.detach()


def _simplices(work: ModulatorWork, start: Beginning) -> Begun:
    """Vectors in the embeddings' principal directions, which P leads back to."""
    embeddings = _embeddings(work)
    tokens = torch.from_numpy(token_table(load_tokenizer(work.config.model), len(embeddings)).counted)
    points, basis = principal_parts(embeddings[tokens.to(embeddings.device)], start.table.shape[1])
    # float64 would double the search among all pairs, whose outcome rounding hardly changes
    vectors, found = (part.cpu() for part in simplex_vectors(points.float()))
    begun, _ = with_vectors(start, tokens[found], vectors[found])
    projection = begun.projection.clone()
    length = projection.norm(dim=0).mean()
    projection[:, : basis.shape[1]] = basis.cpu().to(projection) * length
    return Begun(Beginning(begun.table, projection, begun.offset, begun.known))


def _lexical(work: ModulatorWork, stage: Stage, seed: int, start: Beginning | None) -> Begun:
    config, lexicon = work.config, work.lexicon
    assert lexicon is not None
    width = min(config.modulator.residual.width, work.model.d_model)
    found = lexical_vectors(
        lexicon.taxonomy,
        lexicon.split,
        _embeddings(work),
        config.lexicon.similarity,
        width,
        config.lexicon.neighbours,
        config.lexicon.temperature,
        config.seed,
    )
    directions = found.vectors.shape[1]
    if directions < width and start is not None:
        stage.warn(
            f"modulator.residual.width={config.modulator.residual.width} is more than the {directions} directions in "
            f"the relations of {len(lexicon.split.anchors)} anchors: the other columns begin empty"
        )
    if config.modulator.init == "relational":
        assert start is not None
        return Begun(with_vectors(start, found.tokens, found.vectors)[0], relations=found.quality)
    return _on_states(work, stage, found, start)


def _on_states(work: ModulatorWork, stage: Stage, found: LexicalVectors, start: Beginning | None) -> Begun:
    """The same vectors, with the map that brings the anchors' to the model's states of them."""
    assert work.lexicon is not None
    split = work.lexicon.split
    n_anchors = len(split.anchors)
    words = [*split.anchors, *words_at(split, found.judged)]
    states = read_word_states(work, stage, words, n_anchors)
    places = torch.cat([torch.arange(n_anchors), found.judged])[torch.from_numpy(states.words)]
    n_read = int((states.words < n_anchors).sum())
    vectors = found.vectors
    if vectors.shape[1] >= n_read:
        # a rotation is determined by more anchors than directions alone
        vectors = vectors[:, : n_read - 1]
        stage.warn(
            f"{n_read} anchors occur in the training examples: the map is fitted on the first {n_read - 1} of "
            f"{found.vectors.shape[1]} directions of their relations, and the others are left out"
        )
    anchors, held_out = (
        (vectors[places[part]], states.mean[part]) for part in (slice(0, n_read), slice(n_read, len(places)))
    )
    fitted = fit_map(*anchors)
    quality: MapQuality = map_quality(fitted, anchors, held_out, states.by_layer, _SHUFFLES, work.config.seed)
    if start is None:
        return Begun(directions=fitted.weight, relations=found.quality, map=quality)
    begun, factor = with_vectors(start, found.tokens, vectors)
    matched = work.config.modulator.residual.match_norms
    typical = work.model.d_model**0.5 if matched else sum(states.lengths.values()) / len(states.lengths)
    return Begun(with_map(begun, fitted, factor, typical), None, found.quality, quality)
