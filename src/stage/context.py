"""A running stage: progress, tables, tracking, and the provenance of what it makes."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape

from src.artifacts import (
    Artifact,
    DamagedArtifact,
    Draft,
    Parent,
    Plan,
    Provenance,
    create_artifact,
    find_finished,
    now,
    open_artifact,
    verify,
)
from src.artifacts.files import make_folder
from src.config.schema import fingerprint
from src.config.shared import StageConfig
from src.report.tables import Table
from src.report.terminal import print_table
from src.stage.machine import git_revision, limit_threads, no_progress_bars, package_versions, seed_everything
from src.stage.progress import Advance, progress_bar
from src.stage.tracking import NoTracker, Tracker, WandbTracker

if TYPE_CHECKING:
    from src.report.artifact_report import NamedChart, NamedPage

log = logging.getLogger("strata")

# tables that go to a file or a pipe are not squeezed into 80 columns
_FILE_WIDTH = 140


class Stage:
    """One run of one stage; use it as a context manager.

    name: the stage's name. config: its checked config. overrides: what the user changed, for the W&B run name.
    """

    def __init__(self, name: str, config: StageConfig, overrides: list[str]) -> None:
        self.name = name
        self.config = config
        self.root = Path(config.artifacts_dir)
        self.console = Console(highlight=False)
        self.errors = Console(stderr=True, highlight=False)
        if not self.console.is_terminal:
            self.console.width = _FILE_WIDTH
        self._overrides = overrides
        self._tracker: Tracker = NoTracker()
        self._untracked: list[Callable[[], None]] = []
        self._tracks_points = True
        self._values = config.model_dump(mode="json")

    def __enter__(self) -> Self:
        make_folder(self.root)
        limit_threads(self.config.threads)
        from src.devices import resolve_device  # imports torch, which reads the number of threads

        self.device = resolve_device(self.config.device)
        self.provenance = Provenance(
            config=self._values,
            seed=self.config.seed,
            device=str(self.device),
            versions=package_versions(),
            git_revision=git_revision(),
            started_at=now(),
        )
        seed_everything(self.config.seed)
        if not self.errors.is_terminal:
            no_progress_bars()
        if self.config.logger.kind == "wandb":
            self._tracker = self._start_wandb()
        log.info("%s starts: %s", self.name, " ".join(self._overrides) or "defaults")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            log.error("%s failed: %s", self.name, error)
        for entry in self._untracked:
            # a tracker that fails must not cost the user a result that is on the disk
            try:
                entry()
            except Exception as failure:
                self.warn(f"tracking failed: {failure}")
                break
        if (place := self._tracker.where()) is not None:
            self.say(f"W&B: {place}")
        self._tracker.finish(exit_code=0 if error is None else 1)

    def _start_wandb(self) -> Tracker:
        values = {key: value for key, value in self._values.items() if key != "logger"}
        return WandbTracker(
            self.config.logger,
            run_id=fingerprint({"stage": self.name, "config": values})[:16],
            group=self.config.experiment_name,
            job_type=self.name,
            name=" ".join([self.name, *(word for word in self._overrides if not word.startswith("logger"))]),
            config=self._values,
        )

    def use_device(self, name: str) -> None:
        """Compute on another device than the config's from here on. Raises StrataError if there is no such device."""
        from src.devices import resolve_device

        self.device = resolve_device(name)
        self.provenance = replace(self.provenance, device=str(self.device))

    def plan(
        self,
        kind: str,
        label: str,
        identity: dict[str, Any],
        parents: list[Parent] | None = None,
        name: str | None = None,
    ) -> Plan:
        """The plan of an artifact below `artifacts_dir`. A stage that draws random numbers puts its seed in."""
        return Plan(self.root, kind, label, identity, parents or [], name)

    def find(self, plan: Plan) -> Artifact | None:
        """The finished artifact of a plan, or None if it must be made (again, if its meta.json is damaged)."""
        try:
            return find_finished(plan, overwrite=self.config.overwrite)
        except DamagedArtifact as error:
            self.warn(f"{error}: it is made again")
            return None

    def reuse(self, plan: Plan, checked: Callable[[str], bool] = lambda _: True) -> Artifact | None:
        """The finished and undamaged artifact of a plan, which is then said to be reused, or None if it must be made.

        checked: the files whose checksums are compared; all by default.
        """
        artifact = self.find(plan)
        if artifact is None or not self.is_whole(artifact, checked):
            return None
        self.say(f"{artifact.path} is already there and fits: reused (overwrite=true remakes it)")
        return artifact

    def is_whole(self, artifact: Artifact, checked: Callable[[str], bool] = lambda _: True) -> bool:
        """Whether an artifact's files are what they were; the user is warned if not."""
        problems = verify(artifact.path, checked)
        if problems:
            self.warn(f"{artifact.path} is damaged ({problems[0]}): it is made again")
        return not problems

    def finished(self, plan: Plan) -> Artifact:
        """The artifact of a plan that has just been made."""
        return open_artifact(plan.path, plan.kind)

    @contextmanager
    def create(self, plan: Plan) -> Iterator[Draft]:
        """Make the artifact of a plan; nothing is left behind if the block fails."""
        with create_artifact(plan, self.provenance, overwrite=self.config.overwrite) as draft:
            yield draft
        self.say(f"wrote {plan.path}")

    def show(self, table: Table) -> None:
        """Print a result table and send it to the tracker."""
        print_table(table, self.console)
        self._track(lambda: self._tracker.log_table(table))

    def report(
        self,
        draft: Draft,
        title: str,
        text: str,
        tables: Sequence[Table],
        figures: "Sequence[NamedChart]",
        details: Sequence[Table] = (),
        metrics: Mapping[str, float] | None = None,
        pages: "Sequence[NamedPage]" = (),
    ) -> None:
        """Show the tables of a stage, track them, and put them into the artifact, where the report page finds them.

        details: tables that are too long for a terminal: they are only tracked and put into the artifact.
        metrics: numbers by name for the tracker's summary. pages: HTML files of the draft that the report links to.
        """
        # altair takes a second to import, and --help must not wait for it
        from src.report.artifact_report import write_report

        pictures = write_report(draft.path, title, text, [*tables, *details], figures, pages)
        for table in tables:
            self.show(table)
        for table in details:
            self._track(lambda table=table: self._tracker.log_table(table))
        numbers = {name: value for name, value in (metrics or {}).items() if math.isfinite(value)}
        draft.summary |= {"n_shown": len(tables), "metrics": numbers}
        for name, png in pictures.items():
            picture = png.read_bytes()  # the draft is gone when the tracker's turn comes
            self._track(lambda name=name, picture=picture: self._tracker.log_figure(name, picture))
        self._track(lambda: self._tracker.log_metrics(numbers))

    def track_point(self, curve: str, step: int, values: Mapping[str, float]) -> None:
        """Send a point of curves to the tracker at once, while work goes on; curve: what its numbers are grouped by."""
        if self._tracks_points:
            try:
                self._tracker.log_point(curve, step, {k: v for k, v in values.items() if math.isfinite(v)})
            except Exception as failure:  # as at the end: it must not cost the user a result
                self._tracks_points = False
                self.warn(f"tracking of curves failed: {failure}")

    def _track(self, entry: Callable[[], None]) -> None:
        self._untracked.append(entry)

    def say_text(self, artifact: Artifact) -> None:
        """Say what the report of a finished artifact says in words."""
        from src.report.artifact_report import read_report

        self.say(read_report(artifact.path).text)

    def show_report(self, artifact: Artifact) -> None:
        """Show the tables of a finished artifact again, and track what was tracked when it was made."""
        from src.report.artifact_report import read_report

        report, summary = read_report(artifact.path), artifact.meta.summary
        for place, table in enumerate(report.tables):
            if place < summary["n_shown"]:
                self.show(table)
            else:
                self._track(lambda table=table: self._tracker.log_table(table))
        for figure in report.figures:
            self._track(lambda figure=figure: self._tracker.log_figure(figure.title, figure.png))
        self._track(lambda: self._tracker.log_metrics(summary["metrics"]))

    def say(self, message: str) -> None:
        """One line for the user, and for the run log."""
        log.info(message)
        self.console.print(escape(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """A warning for the user, and for the run log."""
        log.warning(message)
        self.errors.print(f"[yellow]warning:[/yellow] {escape(message)}", soft_wrap=True)

    def progress(self, description: str, total: int | None, unit: str) -> AbstractContextManager[Advance]:
        """A progress bar on stderr (see progress_bar)."""
        return progress_bar(self.errors, description, total, unit)
