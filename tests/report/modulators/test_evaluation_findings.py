"""What the evaluation says, of effects whose truth is planted."""

import re

import pytest
import torch

from src.modulators.evaluation.effects import FROZEN, Effects
from src.report.modulators.evaluation.generations import AGAIN, generations_finding
from src.report.modulators.evaluation.predictions import MODULATED, predictions_finding
from src.report.modulators.evaluation.sweep import sweep_finding

N = 40
GROUPS = torch.arange(N)


def effects(shift: float, kl: float = 0.0, seed: int = 0) -> Effects:
    """NLL of documents that differ much, all of them moved by about `shift` a token."""
    draws = torch.Generator().manual_seed(1)
    counts = torch.randint(20, 60, (N,), generator=draws).double()
    base = (2 + 0.5 * torch.randn(N, generator=draws)).double()
    noise = 0.01 * torch.randn(N, generator=torch.Generator().manual_seed(seed + 2)).double() * (shift != 0)
    ones = torch.ones(N, dtype=torch.float64)
    return Effects(
        nll=(base + shift + noise) * counts,
        kl=kl * counts,
        agreement=counts,
        n_predicted=counts,
        cosine=0.9 * counts,
        cosine_square=0.82 * counts,
        norm_ratio=1.1 * counts,
        n_states=counts,
        pooled_cosine=0.95 * ones,
        neighbours=0.2 * ones,
    )


def found(**shifts: float):
    variants = {FROZEN: effects(0.0)}
    variants |= {name: effects(shift, 0.1, seed) for seed, (name, shift) in enumerate(shifts.items())}
    return predictions_finding(variants, GROUPS, "documents", seed=0)


def test_a_modulator_that_beats_all_controls_is_said_to():
    said = found(modulated=-0.1, zero=-0.02, random=0.03).text
    told = re.search(r"the NLL is ([\d.]+) nats per token lower \[([\d.]+), ([\d.]+)\]; the best control", said)
    assert told, said
    value, low, high = map(float, told.groups())
    assert low < 0.1 < high
    assert value == pytest.approx(0.1, abs=0.01)
    assert "the best control of equal strength, zero, has" in said
    assert "It predicts better than all 2 controls of equal strength (zero, random)" in said


def test_p_is_corrected_for_all_comparisons():
    """Holm: of three equally sure differences the first counts three times."""
    rows = found(modulated=-0.1, zero=-0.02, random=0.03).records["predictions"]
    corrected = {row["variant"]: row["holm_p"] for row in rows}
    assert corrected.pop(MODULATED) is None
    # no draw of 9,999 signs reaches any of them
    assert corrected == pytest.approx(dict.fromkeys((FROZEN, "zero", "random"), 3 / 10_000))


def test_a_gain_that_is_the_controls_too_is_not_the_modulators():
    """Spec G7: with small strengths the effect of a modulator is the shrink, which the control zero has too."""
    said = found(modulated=-0.1, zero=-0.1, random=0.03).text
    assert "It predicts better than random at equal strength, but not than zero" in said
    assert "none of the controls of equal strength (zero)" in found(modulated=-0.1, zero=-0.15).text


def test_without_controls_none_are_claimed():
    said = found(modulated=0.05).text
    assert "nats per token higher" in said
    assert "no controls of equal strength" in said
    assert "the best control" not in said


def test_numbers_are_those_of_the_effects():
    finding = found(modulated=-0.1, zero=-0.02)
    frozen, modulated, zero = finding.records["predictions"]
    truth = effects(0.0)
    assert frozen["nll"] == pytest.approx(float(truth.nll.sum() / truth.n_predicted.sum()))
    assert frozen["perplexity"] == pytest.approx(float((truth.nll.sum() / truth.n_predicted.sum()).exp()))
    assert modulated["less_frozen"] == pytest.approx(modulated["nll"] - frozen["nll"])
    assert zero["modulated_less"] == pytest.approx(modulated["nll"] - zero["nll"])
    # sd over tokens, from the sums of squares
    assert modulated["cosine_sd"] == pytest.approx((0.82 - 0.81) ** 0.5)
    # paired: the spread of documents is in neither end
    assert modulated["less_frozen_high"] - modulated["less_frozen_low"] < 0.02
    assert modulated["nll_high"] - modulated["nll_low"] > 0.1
    assert (frozen["less_frozen"], modulated["modulated_less"]) == (None, None)


def swept(**changes: tuple[float, float]):
    points = {
        alpha: {FROZEN: effects(0.0), MODULATED: effects(one, seed=1), "zero": effects(other, seed=2)}
        for alpha, (one, other) in zip((0.1, 0.29154), changes.values(), strict=True)
    }
    return sweep_finding(points, GROUPS, [0.5], "documents", seed=0)


def test_a_strength_counts_only_where_it_beats_every_control():
    finding = swept(small=(-0.1, -0.05), large=(0.4, 0.2))
    assert "is -0.1 (at 0.1) to 0.4 (at 0.29154) nats per token" in finding.text
    assert "better than every control of the same strength at 0.1 (" in finding.text
    assert "can't have the strengths 0.5" in finding.text


def test_the_numbers_of_the_notebook_are_only_numbers():
    """Spec G11: 0.29154, 0.29514 and 0.35 are one grid point each, of no meaning of their own."""
    assert "derives none of them" in swept(small=(0.1, 0.05), large=(0.4, 0.2)).text
    assert "at none of them" in swept(small=(0.1, 0.05), large=(0.4, 0.2)).text
    assert [chart.name for chart in swept(small=(0.1, 0.05), large=(0.4, 0.2)).figures] == ["sweep"]


def test_texts_are_shown_without_what_moves_a_cursor():
    record = {"prompt": 0, "prompt_text": "a\x1b[2Jb", "n_tokens": 4, "longest": 4, "original_tokens": 4}
    rows = [
        record | {"mode": mode, "variant": name, "text": "<b>\u202e\n", "identical": not edits, "edits": edits}
        | {"original_nll": 2.0}
        for mode in ("greedy", "sampled")
        for name, edits in ((FROZEN, 0), (MODULATED, 1), ("zero", 2), *([(AGAIN, 3)] if mode == "sampled" else []))
    ]  # fmt: skip
    finding = generations_finding(rows)
    assert "after 0 of 1 prompts" in finding.text
    assert "25 % of the tokens are edits (50 % for the control zero" in finding.text
    assert "it is 25 %; two texts of the frozen model from different draws differ by 75 %" in finding.text
    cells = [cell for table in (*finding.tables, *finding.details) for row in table.rows for cell in row]
    shown = "".join(cell for cell in cells if isinstance(cell, str))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\n" not in shown
