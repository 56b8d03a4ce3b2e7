"""The published notebook's quantities, with the mistakes that ours don't make."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from src.errors import NotApplicableError
from src.geometry.lexicon.distances import path_distances
from src.geometry.words import notebook
from src.geometry.words.notebook_states import notebook_contextual
from src.models import wrap_model
from tests.fixtures.random_taxonomy import made_taxonomy, random_taxonomy
from tests.fixtures.tiny_models import model_config, tiny_model
from tests.fixtures.tiny_project import tiny_tokenizer
from tests.fixtures.worded_taxonomy import MadeSense, tree_of_words, worded_taxonomy


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_first_sense_in_the_order_of_the_database_wins():
    """BUG D-1, and BUG D-2: two tokens of one synset have one definition."""
    long = "a definition that is long"
    fillers = {f"n{i}": MadeSense({f"w{i}": 0}, definition=long) for i in range(10, 18)}
    taxonomy = worded_taxonomy(
        {
            "frequent.n": MadeSense({"w5": 99}, definition=long),
            "rare.a": MadeSense({"w5": 0, "w6": 0}, pos="a", definition=long),
            "short.a": MadeSense({"w7": 5}, pos="a", definition="ten chars!"),
            "w7.v": MadeSense({"w7": 0, "unknown": 3}, pos="v", definition=long),
            **fillers,
        }
    )
    entries = {entry.lemma: entry for entry in notebook.notebook_entries(taxonomy, tiny_tokenizer())}
    assert entries["w5"].sense == entries["w6"].sense == 1
    assert entries["w7"].sense == 3
    assert "unknown" not in entries
    assert entries["w12"].token_id == 12


def test_hardly_any_token_matches():
    with pytest.raises(NotApplicableError, match="compat=notebook"):
        notebook.notebook_entries(tree_of_words([2]), tiny_tokenizer())


def test_pairs_are_drawn_with_replacement_from_some_of_the_words():
    pairs = notebook.notebook_pairs(5000, 2000, 200_000, rng())
    assert len(np.unique(pairs)) <= 2000
    assert (pairs[:, 0] != pairs[:, 1]).all()
    _, times = np.unique(pairs, axis=0, return_counts=True)
    assert times[times > 1].sum() / len(pairs) == pytest.approx(0.048, abs=0.003)  # spec D3


def test_bands_of_the_first_variant_miss_synonyms_and_count_distance_19_twice():
    """BUG D-4."""
    chain = made_taxonomy([[], *([i] for i in range(20))])
    senses = [0] * 8 + [19] * 8
    distances = path_distances(chain, senses)
    rows = {"static": np.random.default_rng(1).normal(size=(16, 4)), "contextual": np.eye(16)}
    records = notebook.notebook_bands(rows, distances, rng())
    counts = {(record["variant"], record["band"]): record["n_pairs"] for record in records}
    assert counts[1, "0.9 to 1"] == 0
    assert counts[1, "0.05 to 0.1"] == counts[1, "0 to 0.05"] > 0
    assert counts[2, "0.5 to 1"] > 0
    assert counts[2, "0 to 0.05"] == 0
    assert math.isnan(next(record["static"] for record in records if record["n_pairs"] == 0))


def test_an_index_in_a_chain_is_no_number_of_steps():
    """BUG D-5."""
    taxonomy = made_taxonomy([[], *([i] for i in range(12))])
    chains = notebook.notebook_chains(taxonomy, [12, 8, 3, 0])
    # ten steps at most, so the chain from 12 ends above 3
    assert chains == [[0, 1, 2], [1, 2, 3]]


def test_chains_follow_the_first_parent_and_distinct_senses():
    taxonomy = made_taxonomy([[], [0], [0], [2, 1]])
    assert notebook.notebook_chains(taxonomy, [3, 3, 2, 1, 0]) == [[0, 2, 4]]


def test_chain_cosines_are_of_the_first_and_of_the_element_at_the_index():
    """BUG D-7: a temporary of row 0 stood where a chain is too short."""
    rows = np.random.default_rng(2).normal(size=(6, 5))
    chains = [[1, 2, 3, 4], [5, 2, 3]]
    found = notebook.chain_cosines(rows, chains)

    def cosine(i: int, j: int) -> float:
        return float(rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j]))

    assert found[1] == (2, pytest.approx((cosine(1, 2) + cosine(5, 2)) / 2))
    assert found[2] == (2, pytest.approx((cosine(1, 3) + cosine(5, 3)) / 2))
    assert found[3] == (1, pytest.approx(cosine(1, 4)))
    assert set(found) == {1, 2, 3}


def test_correlations_of_parts_of_speech_alone():
    """BUG D-3 and the confound of spec D4: no taxonomy in the rows, and yet a correlation, not among nouns."""
    nouns = random_taxonomy(200, 3, roots=0.0)
    pos = ["n"] * 200 + ["a"] * 100
    mixed = made_taxonomy([nouns.parents(sense).tolist() for sense in range(200)] + [[]] * 100, pos)
    distances = path_distances(mixed, range(300), artificial_root=True)
    draws = np.random.default_rng(4)
    rows = draws.normal(size=(300, 64)) / 8
    rows[200:, 0] += 0.5
    found = notebook.notebook_correlations({"static": rows, "contextual": rows}, distances, pos, rng())
    assert found["modifier_pairs_pearson"] > 0.5
    assert found["static_pearson"] > 0.08
    assert abs(found["static_pearson_nouns"]) < 0.03
    assert found["static_gradient"] == pytest.approx(found["static_high"] - found["static_low"])


def test_cosines_of_pairs_and_classes_are_brute_force():
    rows = np.random.default_rng(5).normal(size=(300, 6))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = notebook.notebook_pairs(300, 50, 400, rng())
    assert notebook.cosines_of(rows, pairs) == pytest.approx((units[pairs[:, 0]] * units[pairs[:, 1]]).sum(1))
    classes = ["a"] * 250 + ["b"] * 41 + ["c"] * 9
    records = notebook.notebook_classes({"static": rows}, classes)
    assert [record["class"] for record in records] == ["a", "b"]
    inside = (units[:200] @ units[:200].T)[np.triu_indices(200, 1)]  # the first 200 members only
    assert records[0]["static"] == pytest.approx(inside.mean())
    assert records[0]["n"] == 250


def test_seeds_repeat_and_summarise():
    taxonomy = random_taxonomy(60, 6, roots=0.0)
    rows = {"static": np.random.default_rng(7).normal(size=(60, 32))}
    distances = path_distances(taxonomy, range(60))
    chains = notebook.notebook_chains(taxonomy, range(60))
    records = notebook.notebook_seeds(rows, distances, chains, 3)
    assert records == notebook.notebook_seeds(rows, distances, chains, 3)
    assert records[0] != {**records[1], "seed": 0}
    summary = {row["quantity"]: row for row in notebook.seed_summary(records)}
    values = [record["static_pearson"] for record in records]
    assert summary["static_pearson"]["mean"] == pytest.approx(np.mean(values))
    assert summary["static_pearson"]["largest"] == max(values)
    # CV of the volume of 5 points of a Gaussian in 32 dimensions (spec B4): 0.261
    assert summary["static_simplex_cv"]["mean"] == pytest.approx(0.261, abs=0.05)
    decay = records[0]["static_chain_1"] - records[0]["static_chain_5"]
    assert records[0]["static_decay_1_to_5"] == pytest.approx(decay)


def test_spearman_is_scipys():
    taxonomy = random_taxonomy(80, 8, roots=0.0)
    distances = path_distances(taxonomy, range(80))
    rows = np.random.default_rng(9).normal(size=(80, 5))
    found = notebook.notebook_correlations({"static": rows}, distances, ["n"] * 80, rng())
    pairs = notebook.notebook_pairs(80, notebook.PAIR_TOKENS, notebook.PAIRS, rng())
    similar = 1 / (1 + distances[pairs[:, 0], pairs[:, 1]].astype(float))
    cosine = notebook.cosines_of(rows, pairs)
    assert found["static_spearman"] == pytest.approx(stats.spearmanr(cosine, similar).statistic)


def test_contextual_rows_are_means_over_all_tokens_of_the_last_state():
    module = tiny_model("llama")
    model = wrap_model(module, model_config())
    tokenizer = tiny_tokenizer()
    definitions = ["w5 w6", "w7 w8 w9 w10"]
    found = notebook_contextual(model, tokenizer, definitions)
    for place, definition in enumerate(definitions):
        ids = torch.tensor([tokenizer(notebook_prefix() + definition)["input_ids"]])
        with torch.inference_mode():
            expected = module.base_model(ids).last_hidden_state[0].mean(0)
        assert found[place] == pytest.approx(expected.numpy(), abs=1e-5)


def notebook_prefix() -> str:
    return "summarize: "
