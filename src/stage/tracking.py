"""Experiment tracking: the tables and figures of a stage, sent to W&B as well when the user asks for it."""

import io
import os
from pathlib import Path
from typing import Any, Protocol

from src.config.shared import LoggerConfig
from src.errors import StrataError
from src.report.tables import Cell, Table


class Tracker(Protocol):
    """Where a stage sends its results besides its artifact."""

    def log_table(self, table: Table) -> None:
        """A result table, under its title."""
        ...

    def log_figure(self, title: str, png: bytes) -> None:
        """A figure as a picture."""
        ...

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Numbers for the run's summary, by name."""
        ...

    def log_point(self, curve: str, step: int, values: dict[str, float]) -> None:
        """Numbers at a step of one of several curves."""
        ...

    def where(self) -> str | None:
        """Where the results can be seen, for the user; None if nothing is tracked."""
        ...

    def finish(self, exit_code: int) -> None:
        """Close the run: without this a multirun would merge its jobs into one run."""
        ...


class NoTracker:
    """Tracks nothing."""

    def log_table(self, table: Table) -> None:
        """Do nothing."""

    def log_figure(self, title: str, png: bytes) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Do nothing."""

    def log_point(self, curve: str, step: int, values: dict[str, float]) -> None:
        """Do nothing."""

    def where(self) -> str | None:
        """Nowhere."""
        return None

    def finish(self, exit_code: int) -> None:
        """Do nothing."""


class WandbTracker:
    """One W&B run for one job of one stage.

    The id is a fingerprint of stage and config, so that running the same command again goes on in the same run.
    """

    def __init__(
        self, logger: LoggerConfig, *, run_id: str, group: str, job_type: str, name: str, config: dict[str, Any]
    ) -> None:
        import wandb

        self._wandb = wandb
        self._curves: set[str] = set()
        try:
            self._run = wandb.init(
                project=logger.project,
                entity=logger.entity,
                group=logger.group or group,
                job_type=job_type,
                name=name,
                id=run_id,
                # an offline run has no server to go on with: its id makes `wandb sync` join it to the earlier one
                resume="allow" if logger.mode == "online" else None,
                tags=logger.tags,
                config=config,
                mode=logger.mode,
                settings=wandb.Settings(silent=True),
            )
        except wandb.Error as error:
            raise StrataError(f"W&B can't start ({error}): run `wandb login`, or use logger=wandb_offline") from None

    def log_table(self, table: Table) -> None:
        """Log a table under its title (estimates without their intervals)."""
        rows: list[Any] = _rows(table)
        self._run.log({f"tables/{table.title}": self._wandb.Table(columns=list(table.columns), data=rows)})

    def log_figure(self, title: str, png: bytes) -> None:
        """Log a picture under its title."""
        import PIL.Image

        self._run.log({f"figures/{title}": self._wandb.Image(PIL.Image.open(io.BytesIO(png)))})

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Put numbers into the run's summary."""
        self._run.summary.update(metrics)

    def log_point(self, curve: str, step: int, values: dict[str, float]) -> None:
        """Log numbers under curve/NAME, against curve/step: each curve of a run has steps of its own."""
        if curve not in self._curves:
            self._curves.add(curve)
            self._run.define_metric(f"{curve}/*", step_metric=f"{curve}/step")
        self._run.log({f"{curve}/step": step} | {f"{curve}/{name}": value for name, value in values.items()})

    def where(self) -> str | None:
        """The run's page, or for an offline run the command that sends it."""
        return self._run.url or f"wandb sync {os.path.relpath(Path(self._run.dir).parent)}"

    def finish(self, exit_code: int) -> None:
        """Close the run."""
        self._run.finish(exit_code=exit_code)


def _rows(table: Table) -> list[Any]:
    """The cells of a table with one type a column: W&B refuses a column of numbers and words, which becomes words."""
    columns = [[_plain(cell) for cell in column] for column in zip(*table.rows, strict=True)]
    for column in columns:
        if any(isinstance(cell, str) for cell in column):
            column[:] = [cell if cell is None or isinstance(cell, str) else f"{cell:,}" for cell in column]
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(cell: Cell) -> Any:
    """A number or words: an estimate without its interval, a link without its place."""
    if isinstance(cell, dict):
        return cell["value"] if "value" in cell else cell["text"]
    return cell
