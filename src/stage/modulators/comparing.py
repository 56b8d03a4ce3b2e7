"""The runs against the frozen model and against each other, on test examples."""

from collections.abc import Mapping

import torch

from src.modulators.comparison import by_group, compare_losses
from src.modulators.modulator import Modulator
from src.modulators.training.examples import losses_of
from src.report.finding import Finding
from src.report.modulators.comparison import comparison_finding
from src.stage.context import Stage
from src.stage.modulators.work import ModulatorWork, Run


def compare(runs: Mapping[Run, Modulator], work: ModulatorWork, stage: Stage) -> Finding:
    """Losses on test examples: of each run less the frozen model's, and of the modulator less each control's.

    Raises:
        StrataError: a pass that fails.
    """
    batch_size = work.config.training.batch_size
    frozen, counts = losses_of(work.model, work.test, batch_size)
    groups = torch.tensor([example.group for example in work.test])
    n_tokens, of_frozen = by_group(counts, groups), by_group(frozen, groups)
    records = _records("frozen", 0, of_frozen, n_tokens)
    losses: dict[str, list[torch.Tensor]] = {}
    n_trained: dict[str, int] = {}
    with stage.progress("comparing", len(runs), "runs") as advance:
        for run, modulator in runs.items():
            with modulator.eval().to(work.model.device).attached(work.model):
                sums, _ = losses_of(work.model, work.test, batch_size)
            of_run = by_group(sums, groups)
            losses.setdefault(run.name, []).append(of_run)
            n_trained[run.name] = modulator.n_trained
            records += _records(run.name, run.repeat, of_run, n_tokens)
            advance(1)
    found = compare_losses(
        of_frozen, {name: torch.stack(of_run) for name, of_run in losses.items()}, n_trained, n_tokens
    )
    keys = work.config.modulator
    group = "document" if work.objective == "text" else "synset"
    return comparison_finding(found, keys.kind, keys.residual.train_table, records, group, keys.init)


def _records(run: str, repeat: int, sums: torch.Tensor, n_tokens: torch.Tensor) -> list[dict[str, str | int | float]]:
    pairs = zip(sums.tolist(), n_tokens.tolist(), strict=True)
    return [
        {"run": run, "repeat": repeat, "document": place, "nll_sum": total, "n_tokens": int(count)}
        for place, (total, count) in enumerate(pairs)
    ]
