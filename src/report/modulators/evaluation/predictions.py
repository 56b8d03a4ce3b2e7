"""What eval_modulator.py shows of predictions and states: the modulated model beside its controls."""

from collections.abc import Mapping, Sequence
from math import exp, inf

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from src.features.training.reconstruction import Ratio
from src.modulators.evaluation.contrasts import Difference, mean_with_interval, paired_difference, within
from src.modulators.evaluation.effects import FROZEN, Effects
from src.multiple_tests import holm
from src.report.finding import Finding
from src.report.tables import Cell, Table, cell_text, finite_or_none, interval_cell

MODULATED = "modulated"
LEVEL = 0.05


def predictions_finding(
    effects: Mapping[str, Effects], groups: Int[Tensor, " example"], unit: str, seed: int
) -> Finding:
    """Perplexity, divergence and states of `frozen`, `modulated` and controls of equal strength.

    groups: documents or synsets, whose plural `unit` is.
    """
    nll = {name: mean_with_interval(each.nll, each.n_predicted, groups) for name, each in effects.items()}
    pairs = _Pairs(effects, groups, seed)
    controls = [name for name in effects if name not in (FROZEN, MODULATED)]
    n_groups, n_tokens = len(groups.unique()), int(effects[FROZEN].n_predicted.sum())
    perplexity = [_written(exp(nll[name].value)) for name in (MODULATED, FROZEN)]
    first = (
        f"On {n_groups:,} {unit} ({n_tokens:,} predicted tokens) the modulated model's perplexity is {perplexity[0]}, "
        f"the frozen model's {perplexity[1]}: the NLL is {_change(pairs.to_frozen[MODULATED].ratio)}"
        f"{_best(nll, controls)}."
    )
    tables = [_losses(nll, pairs, unit), _distributions(effects, groups, unit), _states(effects, groups, unit)]
    records = [
        _record(name, each, nll[name], pairs, groups) | {"holm_p": pairs.corrected.get(name)}
        for name, each in effects.items()
    ]
    metrics = {f"nll/{name}": ratio.value for name, ratio in nll.items()}
    metrics["nll/change"] = pairs.to_frozen[MODULATED].ratio.value
    text = f"{first}\n\n{_verdict(pairs, controls)}"
    return Finding(text, tables, records={"predictions": records}, metrics=metrics)


class _Pairs:
    """Differences of NLL: of each variant to the frozen model, and of the modulated model to each other variant."""

    def __init__(self, effects: Mapping[str, Effects], groups: Int[Tensor, " example"], seed: int) -> None:
        def less(one: str, other: str) -> Difference:
            return paired_difference(effects[one].nll, effects[other].nll, effects[one].n_predicted, groups, seed)

        self.to_frozen = {name: less(name, FROZEN) for name in effects if name != FROZEN}
        self.of_modulated = {name: less(MODULATED, name) for name in effects if name != MODULATED}
        names = list(self.of_modulated)
        corrected = holm(np.array([self.of_modulated[name].p for name in names]))
        self.corrected = dict(zip(names, corrected.tolist(), strict=True))

    def is_better(self, name: str) -> bool:
        """Whether the modulated model predicts better than a variant, beyond chance."""
        return self.of_modulated[name].ratio.value < 0 and self.corrected[name] <= LEVEL


def _verdict(pairs: _Pairs, controls: Sequence[str]) -> str:
    if not controls:
        return "There are no controls of equal strength of its kind: nothing says what a strength alone does."
    better = [name for name in controls if pairs.is_better(name)]
    others = [name for name in controls if name not in better]
    if not others:
        said = f"It predicts better than all {len(controls)} controls of equal strength ({', '.join(controls)})"
    elif better:
        said = f"It predicts better than {', '.join(better)} at equal strength, but not than {', '.join(others)}"
    else:
        said = f"It predicts better than none of the controls of equal strength ({', '.join(controls)})"
    return (
        f"{said}; sign flips over groups, Holm's correction over all comparisons, level {LEVEL}. These controls are "
        "not trained: they say how much comes of the strength alone. What training of controls reaches is in the "
        "comparison of train_modulator.py."
    )


def _best(nll: Mapping[str, Ratio], controls: Sequence[str]) -> str:
    if not controls:
        return ""
    best = min(controls, key=lambda name: nll[name].value)
    values = _written(nll[best].value), _written(nll[MODULATED].value)
    return f"; the best control of equal strength, {best}, has {values[0]} to its {values[1]}"


def _losses(nll: Mapping[str, Ratio], pairs: _Pairs, unit: str) -> Table:
    rows: list[Sequence[Cell]] = [
        [
            name,
            exp(ratio.value),
            ratio.value,
            _cell(pairs.to_frozen[name].ratio) if name in pairs.to_frozen else None,
            _cell(pairs.of_modulated[name].ratio) if name in pairs.of_modulated else None,
            pairs.corrected.get(name),
        ]
        for name, ratio in nll.items()
    ]
    caption = (
        f"NLL: nats per predicted token; brackets: 95 % intervals over {unit}, of differences paired. Below 0 in "
        "`modulated less this`: the modulator predicts better. p: sign flips, Holm's correction. The controls have the "
        "modulator's strengths in every layer and are not trained."
    )
    columns = ["variant", "perplexity", "NLL", "less frozen", "modulated less this", "p"]
    return Table("Predictions", columns, rows, caption)


def _distributions(effects: Mapping[str, Effects], groups: Int[Tensor, " example"], unit: str) -> Table:
    rows: list[Sequence[Cell]] = [
        [
            name,
            _cell(within(mean_with_interval(each.kl, each.n_predicted, groups), 0, inf)),
            _cell(within(mean_with_interval(each.agreement, each.n_predicted, groups), 0, 1)),
        ]
        for name, each in effects.items()
        if name != FROZEN
    ]
    caption = (
        "KL: from the frozen model's next-token distribution to this one's, nats per token. Same best: share of tokens "
        f"whose likeliest successor is the frozen model's. Brackets: 95 % intervals over {unit}."
    )
    return Table("Distributions", ["variant", "KL", "same best"], rows, caption)


def _states(effects: Mapping[str, Effects], groups: Int[Tensor, " example"], unit: str) -> Table:
    rows: list[Sequence[Cell]] = []
    for name, each in effects.items():
        n_states, is_frozen = each.n_states, name == FROZEN
        among = mean_with_interval(each.neighbours, torch.ones_like(n_states), groups).value
        compared: list[Cell] = [
            _cell(within(mean_with_interval(each.cosine, n_states, groups), -1, 1)),
            _sd(each),
            float(each.norm_ratio.sum() / n_states.sum()),
            float(each.pooled_cosine.mean()),
        ]
        rows.append([name, *([None] * len(compared) if is_frozen else compared), finite_or_none(among)])
    caption = (
        "Cosine: of each token's final state (before the final norm) with the frozen model's, with its standard "
        "deviation over tokens; length: of the two. Pooled: cosine of an example's mean states. Among: mean cosine of "
        f"an example's states with each other. Brackets: 95 % intervals over {unit}."
    )
    return Table("States", ["variant", "cosine", "sd", "length", "pooled", "among"], rows, caption)


def _record(name: str, each: Effects, nll: Ratio, pairs: _Pairs, groups: Int[Tensor, " example"]) -> dict[str, Cell]:
    ratios = {
        "nll": nll,
        "kl": mean_with_interval(each.kl, each.n_predicted, groups),
        "cosine": mean_with_interval(each.cosine, each.n_states, groups),
        "less_frozen": pairs.to_frozen[name].ratio if name in pairs.to_frozen else None,
        "modulated_less": pairs.of_modulated[name].ratio if name in pairs.of_modulated else None,
    }
    record: dict[str, Cell] = {"variant": name, "perplexity": exp(nll.value)}
    for key, ratio in ratios.items():
        low_high = (None, None, None) if ratio is None else (ratio.value, ratio.low, ratio.high)
        record |= dict(zip((key, f"{key}_low", f"{key}_high"), map(finite_or_none, low_high), strict=True))
    record |= {
        "same_best": float(each.agreement.sum() / each.n_predicted.sum()),
        "cosine_sd": _sd(each),
        "norm_ratio": float(each.norm_ratio.sum() / each.n_states.sum()),
        "pooled_cosine": float(each.pooled_cosine.mean()),
        "neighbours": finite_or_none(float(each.neighbours.nanmean())),
        "n_predicted": int(each.n_predicted.sum()),
    }
    return record


def _sd(each: Effects) -> float:
    n = each.n_states.sum()
    return float((each.cosine_square.sum() / n - (each.cosine.sum() / n).square()).clamp_min(0).sqrt())


def _cell(ratio: Ratio) -> Cell:
    return interval_cell(ratio.value, ratio.low, ratio.high)


def _change(ratio: Ratio) -> str:
    words = cell_text(interval_cell(abs(ratio.value), *sorted((abs(ratio.low), abs(ratio.high)))))
    below = "lower" if ratio.value < 0 else "higher"
    crosses = ratio.low < 0 < ratio.high
    return f"{words.text} nats per token {below}" + (
        " (its interval holds 0)" if crosses else f" {words.interval}" if words.interval else ""
    )


def _written(value: float) -> str:
    return cell_text(value).text
