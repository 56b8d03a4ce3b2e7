"""Measure a model's embeddings: what is read, in which order, on which device, with which random numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from src.config.geometry.stage import GeometryConfig
from src.geometry.embedding.categories import (
    category_statistics,
    centroid_cosines,
    matched_categories,
    nearest_purity,
    words_like,
)
from src.geometry.embedding.census import Census
from src.geometry.embedding.clumps import clumped_rows
from src.geometry.embedding.cosines import cosine_histogram
from src.geometry.embedding.distances import summarise_distances
from src.geometry.embedding.input_output import compare_input_output
from src.geometry.embedding.moments import TableMoments, table_moments
from src.geometry.embedding.norms import summarise_columns, summarise_norms
from src.geometry.embedding.notebook import VARIANTS, as_the_notebook
from src.geometry.embedding.ordered_sets import (
    FoundSet,
    OrderedSet,
    cosine_matrix,
    find_set,
    order_statistics,
    testable,
)
from src.geometry.embedding.positions import PositionTable, describe_positions
from src.geometry.embedding.profile import Categories, EmbeddingProfile, OrderedWords, SpecialTokens, TableProfile
from src.geometry.embedding.relative_bias import RelativeBias
from src.geometry.embedding.rows import Rows
from src.geometry.embedding.spectrum import spectrum
from src.geometry.embedding.untrained import untrained_rows
from src.models.embedding_tables import EmbeddingTables
from src.models.token_table import TokenTable
from src.multiple_tests import holm
from src.stage.context import Stage

# each part draws from a stream of its own: a setting of one changes no other
_PERCENTILES, _DISTANCES, _ORDERS, _CATEGORIES, _POSITIONS = range(5)
# a special token's row of cosines is a row of a table
_MOST_SPECIAL = 200


@dataclass(frozen=True, eq=False)
class EmbeddingInputs:
    """What is read before anything is measured."""

    config: GeometryConfig
    tables: EmbeddingTables
    tokens: TokenTable
    tokenizer: PreTrainedTokenizerBase
    ordered: tuple[OrderedSet, ...]
    categories: Mapping[str, tuple[str, ...]]
    biases: tuple[RelativeBias, ...]
    census: Census
    sizes: Mapping[str, int]


def counted_rows(tokens: TokenTable, rows: Literal["words", "tokens", "all"]) -> Int[np.ndarray, "token"]:
    """Ids of the rows that statistics are over (embeddings.rows)."""
    if rows == "words":
        return tokens.counted
    return np.flatnonzero(~tokens.padding) if rows == "tokens" else np.arange(tokens.n_rows)


def profile_embeddings(given: EmbeddingInputs, stage: Stage) -> EmbeddingProfile:
    """Measure all of it on the stage's device."""
    tables, tokens, config = given.tables, given.tokens, given.config
    ids = counted_rows(tokens, config.embeddings.rows)
    token_ids = np.flatnonzero(~tokens.padding)
    inputs = Rows(tables.input, ids, stage.device)
    everything = Rows(tables.input, token_ids, stage.device)
    moments = table_moments(inputs)
    profiles = [_table("input", inputs, moments, given, stage)]
    input_output = None
    if tables.output is not None and not tables.tied:
        outputs = Rows(tables.output, ids[ids < len(tables.output)], stage.device)
        profiles.append(_table("output", outputs, table_moments(outputs), given, stage))
        if outputs.width == inputs.width:
            input_output = compare_input_output(Rows(tables.input, outputs.ids, stage.device), outputs)
    found = [find_set(given.tokenizer, each) for each in given.ordered]
    found = [each for each in found if all(token < tokens.n_rows for token in each.tokens)]
    tested = testable(found)
    categories = _categories(inputs, moments, given)
    if categories is None and config.embeddings.categories is not None:
        stage.warn(
            f"{config.embeddings.categories}: fewer than 2 categories have words that are single tokens of "
            f"{config.model.name}, so none is measured"
        )
    untrained = untrained_rows(everything, tokens.padding)
    special = np.flatnonzero(tokens.special)[:_MOST_SPECIAL]
    special_rows = inputs.take(special)
    return EmbeddingProfile(
        model=config.model.name,
        census=given.census,
        sizes=given.sizes,
        n_rows=tokens.n_rows,
        n_tokens=len(token_ids),
        n_special=int(tokens.special.sum()),
        tied=tables.tied,
        texts=tokens.texts,
        ids=ids,
        token_ids=token_ids,
        tables=profiles,
        ordered=_ordered(inputs, tested, given),
        too_short=[each for each in found if each not in tested],
        categories=categories,
        special=SpecialTokens(
            special, [tokens.texts[token] for token in special], special_rows.norm(dim=1).cpu().numpy(),
            cosine_matrix(special_rows),
        ),
        untrained=untrained,
        clumped=_clumped(tables.input, token_ids, untrained.copy | tokens.special[token_ids], stage),
        input_output=input_output,
        positions=_positions(tables.positions, given, stage),
        biases=given.biases,
        notebook=[
            as_the_notebook(variant, tables.input, tables.output, given.tokenizer, stage.device)
            for variant in (VARIANTS if config.compat == "notebook" else ())
        ],
    )  # fmt: skip


def _clumped(
    table: Tensor, token_ids: Int[np.ndarray, "token"], without: Bool[np.ndarray, "token"], stage: Stage
) -> Bool[np.ndarray, "token"]:
    """Tokens whose rows all point one way; copies and special tokens are told apart from them."""
    clumped = np.zeros(len(token_ids), bool)
    plain = np.flatnonzero(~without)
    clumped[plain] = clumped_rows(Rows(table, token_ids[plain], stage.device))
    return clumped


def _rng(given: EmbeddingInputs, *part: int) -> np.random.Generator:
    return np.random.default_rng([given.config.seed, *part])


def _table(
    name: Literal["input", "output"], rows: Rows, moments: TableMoments, given: EmbeddingInputs, stage: Stage
) -> TableProfile:
    settings = given.config.embeddings
    sample = rows.sample(settings.percentile_rows, _rng(given, _PERCENTILES))
    with stage.progress(f"cosines of {name} rows", len(sample) * (len(sample) - 1) // 2, "pair") as done:
        histogram = cosine_histogram(rows, sample, done)
    near = rows.sample(settings.distance_rows, _rng(given, _DISTANCES))
    mean_square = float(moments.norms.square().mean())
    return TableProfile(
        name=name,
        width=rows.width,
        norms=summarise_norms(moments.norms),
        centred_norms=summarise_norms(moments.centred_norms),
        norm_values=moments.norms.numpy(),
        columns=summarise_columns(moments.mean, moments.covariance),
        cosine=moments.cosine,
        centred_cosine_mean=moments.centred_cosine_mean,
        histogram=histogram,
        spectrum=spectrum(moments.covariance, moments.n_rows),
        distances=summarise_distances(rows.take(near), is_sample=len(near) < len(rows)),
        mean_squared_distance=moments.mean_squared_distance,
        mean_share=float(moments.mean.square().sum()) / mean_square if mean_square > 0 else float("nan"),
    )


def _ordered(rows: Rows, tested: list[FoundSet], given: EmbeddingInputs) -> list[OrderedWords]:
    cosines = [cosine_matrix(rows.take(np.array(each.tokens))) for each in tested]
    statistics = [
        order_statistics(matrix, each.distances, given.config.embeddings.permutations, _rng(given, _ORDERS, place))
        for place, (each, matrix) in enumerate(zip(tested, cosines, strict=True))
    ]
    adjusted = holm(np.array([each.p for each in statistics], float))
    return [OrderedWords(*each) for each in zip(tested, cosines, statistics, adjusted.tolist(), strict=True)]


def _categories(rows: Rows, moments: TableMoments, given: EmbeddingInputs) -> Categories | None:
    matched = matched_categories(given.tokenizer, given.categories)
    matched = [each for each in matched if all(token < given.tokens.n_rows for token in each.tokens)]
    if len(matched) < 2:
        return None
    draws = given.config.embeddings.draws
    pool = words_like(given.tokens)
    norms = _norms_by_id(rows, pool, [token for each in matched for token in each.tokens])
    overall = moments.cosine.mean, moments.centred_cosine_mean
    statistics = [
        category_statistics(
            rows, norms, each, pool, moments.mean, overall, draws, _rng(given, _CATEGORIES, place)
        )
        for place, each in enumerate(matched)
    ]  # fmt: skip
    return Categories(
        statistics=statistics,
        adjusted_p=holm(np.array([each.p for each in statistics])).tolist(),
        adjusted_centred_p=holm(np.array([each.centred_p for each in statistics])).tolist(),
        centroids=centroid_cosines(rows, matched, moments.mean),
        purity=nearest_purity(rows, matched, moments.mean, draws, _rng(given, _CATEGORIES, len(matched))),
    )


def _norms_by_id(rows: Rows, pool: Int[np.ndarray, "candidate"], more: list[int]) -> np.ndarray:
    norms = np.full(len(rows.table), np.nan)
    wanted = Rows(rows.table, np.union1d(pool, np.array(more)), rows.device)
    for places, block in wanted.blocks():
        norms[wanted.ids[places]] = block.norm(dim=1).cpu().numpy()
    return norms


def _positions(table: Tensor | None, given: EmbeddingInputs, stage: Stage) -> PositionTable | None:
    if table is None or len(table) < 3:
        return None
    return describe_positions(table, stage.device, _rng(given, _POSITIONS))
