"""The runs against the frozen model and against each other, on test examples."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from src.features.training.reconstruction import ratio_of_sums
from src.modulators.modulator import Modulator
from src.report.finding import Finding
from src.report.tables import Cell, Interval, Table
from src.stage.context import Stage
from src.stage.modulators.training import losses_of
from src.stage.modulators.work import ModulatorWork, Run


def compare(runs: Mapping[Run, Modulator], work: ModulatorWork, stage: Stage) -> Finding:
    """Losses on test examples, each with its paired difference to the frozen model."""
    batch_size = work.config.training.batch_size
    frozen, counts = losses_of(work.model, work.test, batch_size)
    rows: list[Sequence[Cell]] = [["frozen", None, _interval(frozen, counts), None]]
    with stage.progress("evaluating", len(runs), "runs") as advance:
        for run, modulator in runs.items():
            with modulator.to(work.model.device).attached(work.model):
                sums, _ = losses_of(work.model, work.test, batch_size)
            rows.append([run.name, run.repeat, _interval(sums, counts), _interval(sums - frozen, counts)])
            advance(1)
    table = Table("Modulators", ["run", "repeat", "NLL", "less frozen"], rows, "On test examples.")
    return Finding("Compared.", [table])


def _interval(sums: Float[Tensor, " example"], counts: Float[Tensor, " example"]) -> Interval:
    found = ratio_of_sums(sums, counts)
    return {"value": found.value, "low": found.low, "high": found.high}
