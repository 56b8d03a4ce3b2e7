"""The testbed's known latents are found by features of its SAEs, as docs/testbed_latents.md says."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from testbed import evaluate, latents, latents_table
from testbed.labelled_corpus import Corpus, read_corpus, states
from testbed.latents_table import Row

SAES = str(latents.HERE / "saes" / "layer_{layer}")
DOCUMENTS, MIN_SUPPORT = 600, 6
MARGIN = 0.15  # of F1 on fewer documents than the table's


@pytest.fixture(scope="module")
def table() -> list[Row]:
    return latents_table.read()


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus(DOCUMENTS, MIN_SUPPORT)


def test_halves_are_cut_by_document_and_each_has_enough_of_every_latent(corpus: Corpus) -> None:
    chosen_on = corpus.tokens(chosen_on=True)
    assert torch.equal(corpus.tokens(chosen_on=False), ~chosen_on)
    assert set(corpus.document[chosen_on].tolist()).isdisjoint(corpus.document[~chosen_on].tolist())
    halves = [{tuple(d) for d, is_in in zip(corpus.documents, corpus.is_chosen_on, strict=True) if is_in == half}
              for half in (True, False)]  # fmt: skip
    assert halves[0].isdisjoint(halves[1])  # no copy on both sides
    assert min(corpus.labels[chosen_on].sum(0).min(), corpus.labels[~chosen_on].sum(0).min()) >= MIN_SUPPORT


def test_what_is_chosen_on_one_half_is_scored_on_the_other(corpus: Corpus) -> None:
    """A feature that is the latent on the first half and noise on the second must come out as noise."""
    noise = torch.rand(corpus.labels.shape, generator=torch.Generator().manual_seed(0)) < 0.02
    chosen_on = corpus.tokens(chosen_on=True)
    features = torch.where(chosen_on[:, None], corpus.labels, noise).float()
    matches, band = latents.match(corpus, lambda tokens: features[tokens])
    assert matches.f1.min() == 1
    assert band.value.max() < 0.2
    matches, band = latents.match(corpus, lambda tokens: corpus.labels.float()[tokens], replicates=20)
    assert band.value.min() == 1
    assert band.low.min() == 1
    _, by_chance = latents.match(corpus, lambda tokens: corpus.labels.float()[tokens], latents.shuffled(corpus, 1))
    assert by_chance.value.median() < 0.1


def test_single_words_are_their_own_latents(corpus: Corpus) -> None:
    _, band = latents.match(corpus, latents.single_tokens(corpus))
    of = dict(zip(corpus.latents, band.value.tolist(), strict=True))
    words = [f1 for latent, f1 in of.items() if latent.group in ("weekdays", "months", "hours and numbers", "digits")]
    assert len(words) == 41
    assert min(words) == 1
    assert max(f1 for latent, f1 in of.items() if latent.group in ("emotion of the passage", "next month")) < 0.5


@dataclass(frozen=True)
class Rematch:
    """A latent matched anew on fewer documents, at the layer where most of its group is found."""

    latent: str
    feature: int
    f1: float
    in_table: float  # F1 at that layer
    verdict: str


@pytest.fixture(scope="module")
def found(corpus: Corpus, table: list[Row]) -> dict[str, list[Rematch]]:
    """By group. One forward pass, and one match for each layer."""

    def layer_of(rows: list[Row]) -> int:
        return Counter(row.layer for row in rows if row.verdict == "found").most_common(1)[0][0]

    rows = {
        group: members
        for group, members in latents_table.groups(table).items()
        if group in ("weekdays", "sum's carry", "next emotion")
    }
    layers = {group: layer_of(members) for group, members in rows.items()}
    wanted = sorted(set(layers.values()))
    model = evaluate.load("base").model
    with torch.no_grad():
        residuals = states(model, {f"{layer}": model.layers[layer] for layer in wanted}, corpus)
        results = {
            layer: latents.match(corpus, latents.encoder(latents.load(SAES, layer), residuals[f"{layer}"]))
            for layer in wanted
        }
    column = {(latent.group, latent.name): i for i, latent in enumerate(corpus.latents)}
    again: dict[str, list[Rematch]] = {}
    for group, members in rows.items():
        matches, band = results[layers[group]]
        for row in members:
            if (i := column.get((group, row.latent))) is not None:  # enough of it in these documents
                again.setdefault(group, []).append(
                    Rematch(
                        row.latent,
                        int(matches.feature[i]),
                        float(band.value[i]),
                        row.f1_by_layer[layers[group]],
                        row.verdict,
                    )
                )
    return again


def test_docs_are_what_the_data_say(table: list[Row]) -> None:
    text = Path(latents_table.TABLE).read_text()
    for part in (latents_table.summary(table), latents_table.missing(table), latents_table.tables(table)):
        assert part in text


def test_each_weekday_has_a_feature_of_its_own(found: dict[str, list[Rematch]]) -> None:
    assert len(found["weekdays"]) == 7
    assert len({one.feature for one in found["weekdays"]}) == 7
    for one in found["weekdays"]:
        assert one.verdict == "found"
        assert one.f1 >= max(0.85, one.in_table - MARGIN), one


def test_a_carry_has_a_feature(found: dict[str, list[Rematch]]) -> None:
    by_name = {one.latent: one for one in found["sum's carry"]}
    for name in ("carry into the tens, at the = sign", "no carry into the tens, at the = sign"):
        one = by_name[name]
        assert one.verdict == "found"
        assert one.f1 >= one.in_table - MARGIN, one
        assert one.f1 > 0.65  # what "the word is =" gives


def test_emotions_have_features_before_the_word_that_names_them(found: dict[str, list[Rematch]]) -> None:
    emotions = found["next emotion"]
    assert len(emotions) >= 4
    assert len({one.feature for one in emotions}) == len(emotions)
    assert median(one.f1 for one in emotions) >= median(one.in_table for one in emotions) - MARGIN
    assert median(one.f1 for one in emotions) > 0.65


def test_the_table_says_what_the_readme_promises(table: list[Row]) -> None:
    """Found, in features of their own, above all baselines where a word is not the answer itself."""
    of = latents_table.groups(table)
    for group, n in {"weekdays": 7, "months": 12, "digits": 10, "next emotion": 6}.items():
        places = {(row.layer, row.feature) for row in of[group] if row.verdict == "found"}
        assert len(places) >= n, group
    assert all(
        row.is_more_than_trivial for group in ("next weekday", "next emotion", "sum's carry") for row in of[group]
    )
    assert all(row.low <= row.f1 <= row.high for row in table)


def test_ranks_of_a_scored_layer_put_the_best_first_and_what_has_no_score_last(tmp_path: Path) -> None:
    columns = {
        "layer": [2, 2, 2, 3],
        "feature": [0, 1, 2, 0],
        "score": [0.5, None, 0.9, 0.1],
        "selected": [False, False, True, True],
    }
    pq.write_table(pa.table(columns), tmp_path / "features.parquet")
    ranks = latents_table.ranks_of(tmp_path)
    assert {place: one.rank for place, one in ranks.items()} == {(2, 2): 1, (2, 0): 2, (2, 1): 3, (3, 0): 1}
    assert [place for place, one in ranks.items() if one.is_top] == [(2, 2), (3, 0)]
    named = [
        latents_table.Named(2, 2, "weekdays", "monday", 0.9, "monday", 0.9),
        latents_table.Named(3, 0, "topics", "days", 0.2, "the", 0.6),
        latents_table.Named(2, 0, "topics", "days", 0.2, "the", 0.3),
        latents_table.Named(2, 1, "topics", "days", 0.0, "the", 0.0),
    ]
    top, others = latents_table.named_share(named, ranks).split("of the others")
    assert "1 of 2 (50%) are a known latent and 1 more (50%)" in top
    assert "0 of 2 (0%) are a known latent and 0 more" in others
    assert latents_table.best_scoring(named, ranks).splitlines()[2].startswith("| 2 | 1 | 2 | weekdays: monday | 0.90")
