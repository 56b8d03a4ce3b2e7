"""Scores per token against torch.nn.functional on the logits of the whole, hooked model."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from src.causal import perplexity, suffix
from src.causal.interventions import (
    AlongDirections,
    Constant,
    CopySource,
    Intervention,
    KeepClean,
    Resample,
    Transport,
)
from src.causal.perplexity import Condition, ConditionScorer
from src.causal.scores import EditProof, TokenScores
from src.causal.standard import standard_interventions
from src.causal.suffix import Write
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import attach, capture, wrap_model
from src.transport.operator import TransportOperator
from tests.causal.test_suffix import hooked_logits
from tests.fixtures.tiny_models import D_MODEL, model_config, ragged_batch, tiny_model

SOURCE, TARGET = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
LENGTHS = [9, 4, 12, 7]


def random_operator(target: HookPoint = TARGET) -> TransportOperator:
    draws = torch.Generator().manual_seed(1)
    weight = torch.eye(D_MODEL) + 0.3 * torch.randn(D_MODEL, D_MODEL, generator=draws)
    return TransportOperator(weight, torch.randn(D_MODEL, generator=draws), SOURCE, target, "ridge", 1.0)


def standard_conditions() -> list[Condition]:
    """All standard interventions, at three sets of positions, and one at another hook point."""
    operator = random_operator()
    mean = torch.linspace(-1, 1, D_MODEL)
    interventions = standard_interventions(operator, mean, -mean, seed=0)
    conditions = [
        Condition(f"{name} at {positions}", it, TARGET, positions)
        for positions in (None, (3,), (2, 8))
        for name, it in interventions.items()
    ]
    conditions.insert(5, Condition("zero mlp", Constant(torch.zeros(D_MODEL)), HookPoint("mlp_out", 2), (4,)))
    return conditions


def values_of(name: str, x: Tensor, y: Tensor, edited: Tensor) -> Tensor:
    """What a standard condition must write, by its definition."""
    operator = random_operator()
    n = int(edited.sum())
    mean = torch.linspace(-1, 1, D_MODEL)
    return {
        "transport": lambda: x[edited] @ operator.weight + operator.bias,
        "null": lambda: operator.bias.expand(n, -1),
        "zero": lambda: torch.zeros(n, D_MODEL),
        "mean": lambda: -mean.expand(n, -1),
        "identity": lambda: x[edited],
    }[name.split()[0]]()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon", "opt_post_norm"])
def test_scores_are_those_of_the_hooked_model(family: str) -> None:
    model = wrap_model(tiny_model(family), model_config())
    ids, mask = ragged_batch(LENGTHS)
    conditions = standard_conditions()
    scores = ConditionScorer(model, conditions, rows_per_pass=13).score(ids, mask)
    assert scores.conditions == tuple(condition.name for condition in conditions)
    assert scores.predicted.sum(1).tolist() == [length - 1 for length in LENGTHS]
    states = capture(model, ids, mask, [SOURCE, TARGET])
    with torch.no_grad():
        clean = model.module(input_ids=ids, attention_mask=mask, use_cache=False).logits
    for index, condition in enumerate(conditions):
        if condition.name.split()[0] in ("resample", "rotated"):
            continue
        edited = mask.bool().clone()
        if condition.positions is not None:
            edited &= torch.zeros_like(edited).index_fill(1, torch.tensor(condition.positions), True)
        write = Write(edited, values_of(condition.name, states[SOURCE], states[TARGET], edited))
        logits = hooked_logits(model, ids, mask, condition.target, write)
        for row, length in enumerate(LENGTHS):
            last = length - 1
            expected = cross_entropy(logits[row, :last], ids[row, 1:length], reduction="none")
            torch.testing.assert_close(scores.nll[index, row, :last], expected, atol=2e-5, rtol=1e-5)
            expected = cross_entropy(clean[row, :last], ids[row, 1:length], reduction="none")
            torch.testing.assert_close(scores.clean_nll[row, :last], expected, atol=2e-5, rtol=1e-5)
            log_p, log_q = clean[row, :last].log_softmax(-1), logits[row, :last].log_softmax(-1)
            expected = kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
            torch.testing.assert_close(scores.kl[index, row, :last], expected, atol=2e-5, rtol=1e-5)
            agrees = log_p.argmax(-1) == log_q.argmax(-1)
            assert torch.equal(scores.agrees[index, row, :last], agrees)
            first = edited[row].int().argmax() if edited[row].any() else length
            assert scores.affected[index, row].nonzero()[:, 0].tolist() == list(range(int(first), last))
            assert scores.nll[index, row, last:].abs().sum() == 0
        proof = scores.proofs[condition.name]
        assert proof.holds
        assert proof.tokens == int(edited.sum())
        assert proof.max_change_before < 1e-5


def test_what_comes_before_the_edit_keeps_the_clean_score_exactly() -> None:
    model = wrap_model(tiny_model("gemma3"), model_config())
    # after the last layer's attention, an edit changes its own position alone
    conditions = [condition for condition in standard_conditions() if condition.target == TARGET]
    scores = ConditionScorer(model, conditions).score(*ragged_batch(LENGTHS))
    before = ~scores.affected & scores.predicted
    assert before.any()
    difference = scores.nll - scores.clean_nll
    assert difference[before].abs().max() == 0
    assert scores.kl[before].abs().max() == 0
    assert scores.agrees[before].all()
    assert difference[scores.affected].abs().min() > 0


def test_writing_the_clean_value_changes_nothing() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    points = [HookPoint(hook, layer) for hook in ("resid_pre", "attn_out", "mlp_out", "resid_post") for layer in (0, 2)]
    conditions = [Condition(str(point), KeepClean(), point) for point in points]
    conditions.append(
        Condition("as input of the next", CopySource(HookPoint("resid_post", 1)), HookPoint("resid_pre", 2))
    )
    scores = ConditionScorer(model, conditions).score(*ragged_batch(LENGTHS))
    assert scores.affected.sum() == len(conditions) * scores.predicted.sum()
    assert (scores.nll - scores.clean_nll).abs().max() < 1e-5
    assert scores.kl.max() < 1e-5
    assert scores.agrees[:, scores.predicted].all()
    assert all(proof.holds for proof in scores.proofs.values())


def test_a_planted_linear_block_is_transported_without_loss() -> None:
    """The blocks between source and target add nothing, so that the identity operator is exact."""
    module = tiny_model("llama")
    for layer in (1, 2):
        module.model.layers[layer].self_attn.o_proj.weight.data.zero_()
        module.model.layers[layer].mlp.down_proj.weight.data.zero_()
    for target, source in ((HookPoint("resid_post", 1), 0), (HookPoint("resid_post", 2), 0)):
        identity = TransportOperator(
            torch.eye(D_MODEL), torch.zeros(D_MODEL), HookPoint("resid_post", source), target, "identity"
        )
        conditions = [
            Condition("transport", Transport(identity), target),
            Condition("zero", Constant(torch.zeros(D_MODEL)), target),
        ]
        scores = ConditionScorer(wrap_model(module, model_config()), conditions).score(*ragged_batch(LENGTHS))
        change = (scores.nll - scores.clean_nll)[:, scores.predicted].double().mean(1)
        assert abs(change[0]) < 1e-6
        assert abs(change[1]) > 1e-2


@pytest.mark.parametrize(
    ("rows", "chunk_bytes", "held_bytes"), [(1, 1, 1), (5, 20_000, 7_000), (50, 5_000, 2**28), (None, None, 50_000)]
)
def test_chunks_change_nothing(
    rows: int | None, chunk_bytes: int | None, held_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wrap_model(tiny_model("phi3"), model_config())
    batch = ragged_batch(LENGTHS)
    expected = ConditionScorer(model, standard_conditions(), rows_per_pass=1000, chunk_bytes=2**30).score(*batch)
    monkeypatch.setattr(perplexity, "_HELD_BYTES", held_bytes)
    scorer = ConditionScorer(model, standard_conditions(), rows, chunk_bytes)
    largest: list[int] = []
    model.module.lm_head.register_forward_hook(lambda _module, _args, output: largest.append(output.numel() * 4))
    scores = scorer.score(*batch)
    states_bytes = len(LENGTHS) * max(LENGTHS) * D_MODEL * 4
    n_together = 1 + min(7, max(1, held_bytes // states_bytes))  # one token of so many conditions is scored at once
    assert max(largest) <= max(chunk_bytes or 2**25, n_together * 97 * 4)
    for name in ("clean_nll", "nll", "kl"):
        torch.testing.assert_close(getattr(scores, name), getattr(expected, name), atol=1e-5, rtol=1e-5)
    for name in ("predicted", "agrees", "affected"):
        assert torch.equal(getattr(scores, name), getattr(expected, name))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    batch = ragged_batch(LENGTHS)
    scores = ConditionScorer(wrap_model(tiny_model("qwen3").to(dtype), model_config()), standard_conditions()).score(
        *batch
    )
    reference = ConditionScorer(wrap_model(tiny_model("qwen3"), model_config()), standard_conditions()).score(*batch)
    assert all(proof.holds for proof in scores.proofs.values())
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    found, expected = scores.nll[scores.affected], reference.nll[reference.affected]
    assert (found - expected).norm() < tolerance * expected.norm()
    assert scores.nll.dtype == torch.float32


def test_tokens_that_must_not_be_edited_are_not() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    ids, mask = ragged_batch(LENGTHS)
    editable = torch.ones_like(mask).bool()
    editable[:, 0] = False  # BOS, say
    zero = Constant(torch.zeros(D_MODEL))
    conditions = [Condition("all", zero, TARGET), Condition("1 ...", zero, TARGET, tuple(range(1, 12)))]
    scores = ConditionScorer(model, conditions).score(ids, mask, editable)
    assert not scores.affected[:, :, 0].any()
    assert scores.proofs["all"].tokens == sum(LENGTHS) - len(LENGTHS)
    torch.testing.assert_close(scores.nll[0], scores.nll[1], atol=1e-5, rtol=0)
    everywhere = ConditionScorer(model, conditions[:1]).score(ids, mask)
    assert (everywhere.nll[0] - scores.nll[0])[scores.affected[0]].abs().max() > 1e-3


def test_batches_of_a_sequence_s_own_give_the_scores_of_the_whole() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    ids, mask = ragged_batch(LENGTHS)
    conditions = [it for it in standard_conditions() if not it.name.startswith("resample")]
    scorer = ConditionScorer(model, conditions)
    done: list[int] = []
    expected = scorer.score(ids, mask, advance=done.append)
    assert sum(done) == len(conditions) * len(LENGTHS)
    first, rest = scorer.score(ids[1:2, :4], mask[1:2, :4]), scorer.score(ids[2:], mask[2:])
    for name in ("clean_nll", "nll", "kl", "agrees", "affected", "predicted"):
        whole = getattr(expected, name).float()
        torch.testing.assert_close(getattr(first, name).float(), whole[..., 1:2, :3], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(getattr(rest, name).float(), whole[..., 2:, :], atol=1e-5, rtol=1e-5)
    leftover = scorer.score(ids[:1], mask[:1]).proofs
    for name, proof in expected.proofs.items():
        together = EditProof.together([first.proofs[name], rest.proofs[name], leftover[name]])
        assert (together.tokens, together.max_deviation) == (proof.tokens, 0)


def test_batches_of_single_tokens_and_of_sequences_out_of_reach() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    conditions = [Condition("far", Constant(torch.zeros(D_MODEL)), TARGET, (30,))]
    scorer = ConditionScorer(model, conditions)
    scores = scorer.score(*ragged_batch([1, 1]))
    assert scores.nll.shape == (1, 2, 0)
    scores = scorer.score(*ragged_batch([5, 3]))
    assert not scores.affected.any()
    assert scores.proofs["far"].tokens == 0
    assert torch.equal(scores.nll[0], scores.clean_nll)


def test_a_failing_edit_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    scorer = ConditionScorer(model, [Condition("zero", Constant(torch.zeros(D_MODEL)), TARGET, (2,))])
    monkeypatch.setattr(suffix, "attach", lambda model, point, visit: attach(model, point, lambda x: visit(x) + 0.5))
    with pytest.warns(UserWarning, match="gives other numbers when only the positions after an edit"):
        proof = scorer.score(*ragged_batch(LENGTHS)).proofs["zero"]
    assert proof.max_deviation == 0.5
    assert not proof.holds
    assert proof.max_change_before > 1e-3


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (Constant(torch.zeros(D_MODEL + 1)), r"condition x writes \(32, 17\) at resid_post\.1, which takes \(32, 16\)"),
        (Resample(0), None),
        (CopySource(HookPoint("resid_post", 9)), "resid_post.9: the model has layers 0..2"),
    ],
)
def test_interventions_of_another_model_are_refused(intervention: Intervention, message: str | None) -> None:
    model = wrap_model(tiny_model("llama"), model_config())

    def score() -> TokenScores:
        return ConditionScorer(model, [Condition("x", intervention, TARGET)]).score(*ragged_batch(LENGTHS))

    if message is None:
        assert score().proofs["x"].tokens == 32
        return
    with pytest.raises(StrataError, match=message):
        score()


def test_conditions_need_names_and_positions() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    condition = Condition("x", KeepClean(), TARGET)
    for conditions in ([], [condition, condition]):
        with pytest.raises(StrataError, match=r"conditions need names of their own: (x|there is none)"):
            ConditionScorer(model, conditions)
    with pytest.raises(StrataError, match="rows_per_pass must be at least 1"):
        ConditionScorer(model, [condition], rows_per_pass=0)
    for positions in ((), (3, -1)):
        with pytest.raises(StrataError, match="positions must be counted from 0"):
            Condition("x", KeepClean(), TARGET, positions)


@pytest.mark.parametrize("offset", [1, 3, -1, -20])
@pytest.mark.parametrize("positions", [None, (0, 2, 8)])
def test_an_operator_with_an_offset_is_written_where_its_source_may_be_read(offset, positions) -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    ids, mask = ragged_batch(LENGTHS)
    editable = mask.bool()
    editable[:, 0] = False  # BOS
    editable[2, 5] = False
    operator = replace(random_operator(), target=TARGET.at(offset))
    conditions = [
        Condition("transport", Transport(operator), TARGET, positions),
        Condition("plain", Transport(random_operator()), TARGET, positions),
    ]
    scores = ConditionScorer(model, conditions).score(ids, mask, editable)
    x = capture(model, ids, mask, [SOURCE])[SOURCE]
    edited, values = torch.zeros_like(editable), []
    for row, length in enumerate(LENGTHS):
        for j in range(length) if positions is None else positions:
            i = j - offset
            if j < length and 0 <= i < length and editable[row, j] and editable[row, i]:
                edited[row, j] = True
                values.append(x[row, i] @ operator.weight + operator.bias)
    assert scores.proofs["transport"].tokens == len(values)
    assert scores.proofs["transport"].holds
    assert (len(values) > 0) == (offset != -20)
    plain = editable if positions is None else editable & torch.isin(torch.arange(12), torch.tensor(positions))
    assert scores.proofs["plain"].tokens == int(plain.sum())
    written = Write(edited, torch.stack(values) if values else torch.zeros(0, D_MODEL))
    logits = hooked_logits(model, ids, mask, TARGET, written)
    for row, length in enumerate(LENGTHS):
        expected = cross_entropy(logits[row, : length - 1], ids[row, 1:length], reduction="none")
        torch.testing.assert_close(scores.nll[0, row, : length - 1], expected, atol=2e-5, rtol=1e-5)


def test_a_block_that_copies_the_previous_token_is_replaced_without_loss() -> None:
    """Block 1 is planted: its output at j is a linear map of its input at j - 1, which is the operator of offset 1."""
    module = tiny_model("llama")
    operator = random_operator()

    def forward(hidden_states: Tensor, *_arguments: object, **_keys: object) -> Tensor:
        return torch.cat([hidden_states[:, :1], operator(hidden_states[:, :-1])], 1)

    module.model.layers[1].forward = forward
    model = wrap_model(module, model_config())
    shifted = replace(operator, target=TARGET.at(1))
    conditions = [Condition("exact", Transport(shifted), TARGET), Condition("same token", Transport(operator), TARGET)]
    scores = ConditionScorer(model, conditions).score(*ragged_batch(LENGTHS))
    assert scores.proofs["exact"].tokens == sum(LENGTHS) - len(LENGTHS)
    torch.testing.assert_close(scores.nll[0], scores.clean_nll, atol=1e-5, rtol=0)
    assert (scores.nll[1] - scores.clean_nll).abs().max() > 1e-2


def test_operators_are_written_where_they_were_fitted_for() -> None:
    elsewhere = Transport(random_operator(HookPoint("resid_post", 2)))
    for intervention in (elsewhere, AlongDirections(torch.eye(D_MODEL), elsewhere)):
        with pytest.raises(StrataError, match=r"its operator predicts resid_post\.2, and would be written at"):
            Condition("x", intervention, TARGET)
    with pytest.raises(StrataError, match=r"resid_post\.1@\+1: an offset"):
        Condition("x", KeepClean(), TARGET.at(1))
