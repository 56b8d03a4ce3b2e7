"""The testbed's known latents are found by features of its SAEs, as docs/testbed_latents.md says."""

from pathlib import Path

import pytest
import torch

from testbed import evaluate, latents, latents_table
from testbed.labelled_corpus import Corpus, read_corpus, states
from testbed.latents_table import Row

SAES = str(latents.HERE / "saes" / "layer_{layer}")
DOCUMENTS = 450
MARGIN = 0.15  # of a third of the documents against the table's figures of all


@pytest.fixture(scope="module")
def table() -> list[Row]:
    return latents_table.read()


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus(DOCUMENTS)


def test_halves_are_cut_by_document_and_each_has_enough_of_every_latent(corpus: Corpus) -> None:
    chosen_on = corpus.tokens(chosen_on=True)
    assert torch.equal(corpus.tokens(chosen_on=False), ~chosen_on)
    assert set(corpus.document[chosen_on].tolist()).isdisjoint(corpus.document[~chosen_on].tolist())
    halves = [{tuple(d) for d, is_in in zip(corpus.documents, corpus.is_chosen_on, strict=True) if is_in == half}
              for half in (True, False)]  # fmt: skip
    assert halves[0].isdisjoint(halves[1])  # no copy on both sides
    assert min(corpus.labels[chosen_on].sum(0).min(), corpus.labels[~chosen_on].sum(0).min()) >= 15


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


@pytest.fixture(scope="module")
def found(corpus: Corpus, table: list[Row]) -> dict[tuple[str, str], tuple[int, float, Row]]:
    """(group, latent) -> the feature of a new match at the layer of most of the group's rows, its F1, and the row."""
    layers = {row.group: row.layer for row in table if row.group in ("weekdays", "sum's carry", "next emotion")}
    model = evaluate.load("base").model
    wanted = sorted(set(layers.values()))
    residuals = states(model, {f"{layer}": model.layers[layer] for layer in wanted}, corpus)
    results = {
        layer: latents.match(corpus, latents.encoder(latents.load(SAES, layer), residuals[f"{layer}"]))
        for layer in wanted
    }
    rows = {(row.group, row.latent): row for row in table}
    return {
        (latent.group, latent.name): (
            int(results[layers[latent.group]][0].feature[i]),
            float(results[layers[latent.group]][1].value[i]),
            rows[latent.group, latent.name],
        )
        for i, latent in enumerate(corpus.latents)
        if latent.group in layers
    }


def test_docs_are_what_the_data_say(table: list[Row]) -> None:
    text = Path(latents_table.TABLE).read_text()
    for part in (latents_table.summary(table), latents_table.missing(table), latents_table.tables(table)):
        assert part in text


def test_each_weekday_has_a_feature_of_its_own(found: dict[tuple[str, str], tuple[int, float, Row]]) -> None:
    weekdays = [one for (group, _), one in found.items() if group == "weekdays"]
    assert len(weekdays) == 7
    assert len({feature for feature, _, _ in weekdays}) == 7
    for _, f1, row in weekdays:
        assert f1 >= row.f1_by_layer[row.layer] - MARGIN, row.latent
        assert f1 > 0.8, row.latent
        assert row.verdict == "found"


@pytest.mark.parametrize(("group", "above"), [("sum's carry", 0.5), ("next emotion", 0.5)])
def test_carries_and_emotions_are_found_as_the_table_says(
    found: dict[tuple[str, str], tuple[int, float, Row]], group: str, above: float
) -> None:
    """The group's latents that the table calls found or partly, at the layer of the first of them."""
    members = [one for (of, _), one in found.items() if of == group and one[2].verdict != "not"]
    assert len(members) >= 3
    for _, f1, row in members:
        layer = next(iter(row.f1_by_layer))
        assert f1 >= row.f1_by_layer[layer] - MARGIN
    assert max(f1 for _, f1, _ in members) > above
