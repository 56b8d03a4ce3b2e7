"""What a modulator does to the geometry of states, beside the frozen model and controls of equal strength."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.clouds import clouds_of_model
from src.activations.token_choice import ChosenTokens
from src.errors import NotApplicableError
from src.geometry.simplices.profile import SimplexSettings
from src.geometry.words.matching import FEWEST_WORDS, Word
from src.geometry.words.passages import chosen_tokens, in_carriers
from src.hook_points import HookPoint
from src.models import load_tokenizer
from src.models.checkpoint import open_weights
from src.models.embedding_tables import read_embeddings
from src.modulators.controls.equal_strength import equal_strength_controls
from src.modulators.evaluation.effects import FROZEN
from src.modulators.evaluation.geometry.readings import (
    MODULATED,
    STATIC,
    VECTORS,
    WordReading,
    contrasts,
    profile_readings,
)
from src.modulators.evaluation.geometry.relations import kinship
from src.modulators.evaluation.geometry.volumes import cloud_volumes
from src.modulators.field import FieldModulator
from src.modulators.modulator import Modulator
from src.modulators.notebook.field import NotebookField
from src.modulators.residual import ResidualModulator
from src.report.finding import Finding
from src.report.modulators.evaluation.relations import RelationsFound, relations_finding
from src.report.modulators.evaluation.volumes import volumes_finding
from src.stage.context import Stage
from src.stage.modulators.evaluating.work import EvaluationWork
from src.text import Keep, TokenSequence

Rows = Float[Tensor, "point d_model"]
ALL_DIMENSIONS, ACTIVE_DIMENSIONS = "all", "active"


def measure_relations(work: EvaluationWork, stage: Stage) -> Finding:
    """States of held-out words, in carrier sentences, against their relations in the taxonomy.

    Raises NotApplicableError where too few of the model's tokens are words of the taxonomy that nothing was fitted on.
    """
    keys = work.config.relations
    words, told = _untold_words(work)
    tokenizer = load_tokenizer(work.config.model)
    passages = in_carriers(words, tokenizer, keys.carriers, work.trained.max_length)
    assert passages.sequences is not None
    layers = range(work.model.n_layers)
    last = layers[-1]
    points = [HookPoint("resid_post", layer) for layer in layers]
    states: dict[tuple[str, int], list[Rows]] = defaultdict(list)
    variants = list(_variants(work, keys.control_draws))
    with stage.progress("reading words", len(variants), "variants") as advance:
        for name, modulator in variants:
            clouds = _read(work, modulator, passages.sequences, passages.chosen, points)
            for layer, cloud in zip(layers, clouds, strict=True):
                # one draw of a random control will do where nothing is contrasted
                if layer == last or not states[name, layer]:
                    states[name, layer].append(cloud)
            advance(1)
    static = read_embeddings(open_weights(work.config.model)).input[[word.token_ids[0] for word in words]]
    readings = [WordReading(STATIC, None, [static])]
    if isinstance(work.modulator, ResidualModulator):
        ids = torch.tensor([word.token_ids[0] for word in words], device=work.model.device)
        readings.append(WordReading(VECTORS, None, [work.modulator.target(ids).detach().cpu()]))
    readings += [WordReading(name, layer, draws) for (name, layer), draws in states.items()]
    related = kinship(work.lexicon.taxonomy, [word.senses[0] for word in words])
    with stage.progress("relations of words", 2 * len(readings), "readings") as advance:
        profiles = profile_readings(
            readings, related, last, keys.transform, keys.permutations, work.config.seed, stage.device, advance
        )
    known = dict(work.modulator.named_buffers()).get("known")
    n_known = None if known is None else int(known[[word.token_ids[0] for word in words]].sum())
    found = RelationsFound(words, told, n_known, last, profiles, contrasts(profiles, last))
    return relations_finding(found)


def _untold_words(work: EvaluationWork) -> tuple[list[Word], int]:
    """The words that neither vectors nor definitions that were trained on are of, and how many the latter leave out."""
    words = list(work.lexicon.split.evaluated)
    if work.definitions is None:
        return words, 0
    train, val, _ = work.definitions.shares
    tokenizer = load_tokenizer(work.config.model)
    told = set()
    for example in (*train, *val):
        ids = example.input_ids if example.target_ids is None else example.target_ids
        told.add(tuple(ids[example.predicted].tolist()))
    spelled = [tuple(tokenizer(text_target=word.surface)["input_ids"]) for word in words]
    untold = [word for word, ids in zip(words, spelled, strict=True) if not told & {tuple(word.token_ids), ids}]
    if len(untold) < FEWEST_WORDS:
        raise NotApplicableError(
            f"of {len(words)} words that no vector was made from, {len(untold)} were not in the definitions that it "
            f"was trained on, and {FEWEST_WORDS} are needed: train with a larger lexicon.held_out or taxonomy"
        )
    return untold, len(words) - len(untold)


def _variants(work: EvaluationWork, draws: int) -> Iterator[tuple[str, Modulator | None]]:
    """The frozen model, the modulator, and its controls: those that are random so many times."""
    yield FROZEN, None
    yield MODULATED, work.modulator
    yield from work.controls.items()
    for draw in range(1, draws):
        # one at a time: a control may be as large as the modulator
        for name, control in equal_strength_controls(work.modulator, work.config.seed + draw).items():
            if name in work.controls and _differ(control, work.controls[name]):
                yield name, control


def _differ(one: Modulator, other: Modulator) -> bool:
    if one.settings() != other.settings():
        return True
    mine, theirs = one.state_dict(), other.state_dict()
    return any(not torch.equal(values, theirs[name]) for name, values in mine.items())


def _read(
    work: EvaluationWork,
    modulator: Modulator | None,
    sequences: Sequence[TokenSequence],
    chosen: ChosenTokens,
    points: Sequence[HookPoint],
) -> list[Rows]:
    """The chosen states at each point."""
    with nullcontext() if modulator is None else modulator.attached(work.model):
        clouds = clouds_of_model(work.model, sequences, points, chosen, work.config.batch_size)
    return [torch.from_numpy(clouds[point]) for point in points]


def measure_volumes(work: EvaluationWork, stage: Stage) -> Finding:
    """Simplices of final states of test tokens, one token of each document.

    Raises NotApplicableError where there are too few documents.
    """
    keys = work.config.volumes
    sequences, chosen = _token_of_each_document(work)
    # as many points as vertices make one simplex, whose volume varies with nothing
    if chosen.n_points < 4 * (keys.k + 1):
        raise NotApplicableError(
            f"{chosen.n_points} test {work.unit} are too few for simplices of {keys.k + 1} of them: evaluate on more "
            "examples, or choose a smaller volumes.k"
        )
    point = HookPoint("resid_post", work.model.n_layers - 1)
    variants = {name: modulator for name, modulator in _variants(work, draws=1)}
    clouds: dict[str, Rows] = {}
    with stage.progress("reading tokens", len(variants), "variants") as advance:
        for name, modulator in variants.items():
            clouds[name] = _read(work, modulator, sequences, chosen, [point])[0].to(stage.device)
            advance(1)
    settings = SimplexSettings(keys.k, keys.n_simplices, keys.pool, keys.null_draws)
    spaces = _spaces(work.modulator, clouds)
    found = {}
    n_clouds = len(spaces) * (3 + 2 * sum(settings.n_draws.values()))
    with stage.progress("volumes of simplices", n_clouds, "clouds") as advance:
        for space, here in spaces.items():
            found[space] = cloud_volumes(here, (FROZEN, MODULATED), settings, work.config.seed, advance)
    return volumes_finding(found, work.model.n_layers - 1, work.unit)


def _spaces(modulator: Modulator, clouds: Mapping[str, Rows]) -> dict[str, Mapping[str, Rows]]:
    """The residual stream, and of it the dimensions that a field modulator reads and gates (BUG H-8: all of these)."""
    spaces: dict[str, Mapping[str, Rows]] = {ALL_DIMENSIONS: clouds}
    if isinstance(modulator, FieldModulator | NotebookField) and len(modulator.active) < modulator.d_model:
        spaces[ACTIVE_DIMENSIONS] = {
            name: rows.index_select(1, modulator.active.to(rows.device)) for name, rows in clouds.items()
        }
    return spaces


def _token_of_each_document(work: EvaluationWork) -> tuple[list[TokenSequence], ChosenTokens]:
    """One random token of each group of examples: points that are independent of each other."""
    draws = np.random.default_rng([work.config.seed, 21])
    by_group: dict[int, list[int]] = defaultdict(list)
    for row, example in enumerate(work.examples):
        by_group[example.group].append(row)
    sequences, positions = [], []
    for group in sorted(by_group):
        example = work.examples[int(draws.choice(by_group[group]))]
        ids, goes_on = example.input_ids, example.target_ids is None
        # never the first, whose state is like no other in many models, nor the end that an encoder is told
        possible = np.flatnonzero(example.predicted) if goes_on else np.arange(1, len(ids) - 1)
        if len(possible):
            position = draws.choice(possible, 1)
            # what comes later changes nothing where a model goes on with a text
            read = ids[: int(position[0]) + 1] if goes_on else ids
            sequences.append(TokenSequence(group, read, np.full(len(read), Keep.COUNTED, np.uint8)))
            positions.append(position)
    places = np.arange(len(sequences))
    return sequences, chosen_tokens(sequences, positions, places, len(sequences))
