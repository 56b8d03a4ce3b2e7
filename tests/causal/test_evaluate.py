"""From sequences to judged trials."""

import numpy as np
import pytest
import torch

from src.causal.design import Trial
from src.causal.evaluate import ScoredBatch, changed_before, distance_bins, judge, score_sequences
from src.causal.interventions import Constant, Resample
from src.causal.perplexity import Condition, ConditionScorer
from src.causal.scores import EditProof
from src.causal.sums import SequenceSums
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import wrap_model
from src.text import Keep, TokenSequence
from src.transport.bootstrap import DocumentBootstrap
from src.transport.pairs import LayerPair
from tests.fixtures.tiny_models import D_MODEL, N_VOCAB, model_config, tiny_model

TARGET = HookPoint("resid_post", 1)
ZERO = Condition("zero", Constant(torch.zeros(D_MODEL)), TARGET)
TRIAL = Trial(LayerPair(0, 1), "zero", "", "zero", "all", ("zero",))


def sequences(lengths: list[int]) -> list[TokenSequence]:
    draws = np.random.default_rng(0)
    made = []
    for document, length in enumerate(lengths):
        roles = np.full(length, Keep.COUNTED, np.uint8)
        roles[0] = Keep.BOS
        made.append(TokenSequence(document, draws.integers(3, N_VOCAB, length).astype(np.int32), roles))
    return made


def test_batches_give_the_sums_of_one_batch_and_every_token_score_once() -> None:
    text = sequences([9, 4, 12, 7, 5])
    scorer = ConditionScorer(wrap_model(tiny_model("llama"), model_config()), [ZERO])
    documents = np.array([0, 1, 2, 1, 3])
    found = {}
    for batch_size in (2, 50):
        kept: list[ScoredBatch] = []
        done: list[int] = []
        sums, proofs = score_sequences(scorer, text, documents, batch_size, False, kept.append, done.append)
        assert sorted(row for batch in kept for row in batch.sequences) == [0, 1, 2, 3, 4]
        assert sum(done) == 5
        assert proofs["zero"].tokens == 37 - 5  # BOS is not edited
        assert all(batch.scores.edited["zero"][:, 0].sum() == 0 for batch in kept)
        assert min(len(batch.sequences) for batch in kept) >= 2  # 5 sequences in twos: the last one is not left alone
        found[batch_size] = judge([TRIAL], sums, proofs, DocumentBootstrap(20, 0))
    one, other = (found[size].results[0].summary for size in (2, 50))
    assert one.nll_change.value == pytest.approx(other.nll_change.value, rel=1e-5)
    assert one.nll_change.high == pytest.approx(other.nll_change.high, rel=1e-5)
    assert (found[2].n_sequences, found[2].n_documents, found[2].tokens_edited) == (5, 4, 32)
    everywhere, proofs = score_sequences(scorer, text, documents, 50, True, lambda _: None, lambda _: None)
    assert proofs["zero"].tokens == 37
    assert everywhere.n.sum() == 37 - 5


def test_resampling_works_whatever_is_left_over() -> None:
    scorer = ConditionScorer(wrap_model(tiny_model("llama"), model_config()), [Condition("r", Resample(0), TARGET)])
    sums, _ = score_sequences(scorer, sequences([6] * 5), np.arange(5), 4, False, lambda _: None, lambda _: None)
    assert (sums.change != 0).all()


def test_an_edit_that_did_not_happen_is_an_error() -> None:
    ones = torch.ones(1, 2, dtype=torch.float64)
    sums = SequenceSums(("zero",), (0,), torch.arange(2), ones[0], ones[0], *[ones] * 5, *[ones[..., None]] * 2)
    with pytest.raises(StrataError, match=r"1 of 1 edits did not happen: of 'zero'.* differs .* by 0\.5"):
        judge([TRIAL], sums, {"zero": EditProof(3, 0.5, 0.0)}, DocumentBootstrap(10, 0))
    assert judge([TRIAL], sums, {"zero": EditProof(3, 0.0, 0.0)}, DocumentBootstrap(10, 0)).results[0].recovered == {}


def test_changes_before_an_edit_are_noticed_beyond_rounding() -> None:
    epsilon = torch.finfo(torch.float32).eps
    proofs = {"a": EditProof(1, 0.0, 10 * epsilon), "b": EditProof(1, 0.0, 1e-3)}
    assert changed_before(proofs, epsilon) == ("b", 1e-3)
    assert changed_before({"a": proofs["a"]}, epsilon) is None


@pytest.mark.parametrize(("longest", "bins"), [(1, (0,)), (2, (0, 1)), (5, (0, 1, 2, 4)), (9, (0, 1, 2, 4, 8))])
def test_bins_of_distance_double(longest: int, bins: tuple[int, ...]) -> None:
    assert distance_bins(longest) == bins
