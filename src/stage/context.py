"""A running stage: its seed, device, progress, tables, tracker, and the provenance of what it makes."""

import importlib.metadata
import logging
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from src.artifacts import Artifact, Draft, Parent, Plan, Provenance, create_artifact, find_finished, now, open_artifact
from src.config.schema import fingerprint
from src.config.shared import StageConfig
from src.report.tables import Table
from src.report.terminal import print_table
from src.stage.tracking import NoTracker, Tracker, WandbTracker

# the packages whose versions can change a number
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "zarr", "safetensors", "pyarrow", "datasets")

if TYPE_CHECKING:
    from src.report.artifact_report import NamedChart

log = logging.getLogger("strata")

# tables that go to a file or a pipe are not squeezed into 80 columns
_FILE_WIDTH = 140

ItemT = TypeVar("ItemT")


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
        self._started = time.monotonic()
        self._values = config.model_dump(mode="json")

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self.provenance = Provenance(
            config=self._values,
            seed=self.config.seed,
            device=self.config.device,
            versions=_versions(),
            git_revision=_git_revision(),
            started_at=now(),
        )
        _limit_threads(self.config.threads)
        _seed_everything(self.config.seed)
        if not self.errors.is_terminal:
            # read by transformers and datasets when they are imported: no bars of theirs in a log file
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
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

    def plan(
        self,
        kind: str,
        label: str,
        identity: dict[str, Any],
        parents: list[Parent] | None = None,
        name: str | None = None,
    ) -> Plan:
        """The plan of an artifact below `artifacts_dir`; the seed is always part of its identity."""
        return Plan(self.root, kind, label, {**identity, "seed": self.config.seed}, parents or [], name)

    def reuse(self, plan: Plan) -> Artifact | None:
        """The finished artifact of a plan, which is then said to be reused, or None if it must be made."""
        artifact = find_finished(plan, overwrite=self.config.overwrite)
        if artifact is not None:
            self.say(f"{artifact.path} is already there and fits: reused (overwrite=true remakes it)")
        return artifact

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
    ) -> None:
        """Show the tables of a stage, track them, and put them into the artifact, where the report page finds them.

        details: tables that are too long for a terminal: they are only tracked and put into the artifact.
        metrics: numbers by name for the tracker's summary.
        """
        # altair takes a second to import, and --help must not wait for it
        from src.report.artifact_report import write_report

        pictures = write_report(draft.path, title, text, [*tables, *details], figures)
        for table in tables:
            self.show(table)
        for table in details:
            self._track(lambda table=table: self._tracker.log_table(table))
        draft.summary["n_shown"] = len(tables)
        for name, png in pictures.items():
            picture = png.read_bytes()  # the draft is gone when the tracker's turn comes
            self._track(lambda name=name, picture=picture: self._tracker.log_figure(name, picture))
        if metrics:
            self._track(lambda: self._tracker.log_metrics(dict(metrics)))

    def _track(self, entry: Callable[[], None]) -> None:
        self._untracked.append(entry)

    def show_report(self, artifact: Artifact) -> None:
        """Show the tables of a finished artifact again."""
        from src.report.artifact_report import read_report

        for table in read_report(artifact.path).tables[: artifact.meta.summary["n_shown"]]:
            self.show(table)

    def say(self, message: str) -> None:
        """One line for the user, and for the run log."""
        log.info(message)
        self.console.print(escape(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """A warning for the user, and for the run log."""
        log.warning(message)
        self.errors.print(f"[yellow]warning:[/yellow] {escape(message)}", soft_wrap=True)

    @contextmanager
    def progress(self, description: str, total: int | None, unit: str) -> Iterator["Advance"]:
        """A progress bar with rate and remaining time; silent when stderr is not a terminal. total: None = unknown.

        Yields a function that takes the number of units done since the last call.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), _Rate(unit), TimeRemainingColumn())
        with Progress(*columns, console=self.errors, transient=True, disable=not self.errors.is_terminal) as bar:
            task = bar.add_task(description, total=total)
            yield Advance(bar, task)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the stage began."""
        return time.monotonic() - self._started


class Advance:
    """Moves a progress bar on."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, count: int) -> None:
        """Count units as done."""
        self._bar.advance(self._task, count)

    def counting(self, items: Iterable[ItemT], size: Callable[[ItemT], int]) -> Iterator[ItemT]:
        """Pass items through, counting `size(item)` units for each."""
        for item in items:
            yield item
            self(size(item))


class _Rate(ProgressColumn):
    """`12,345/50,000 tokens  1,234 tokens/s`."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Any) -> Text:
        speed = task.finished_speed or task.speed
        rate = f"  {speed:,.0f} {self._unit}/s" if speed else ""
        total = f"/{int(task.total):,}" if task.total is not None else ""
        return Text(f"{int(task.completed):,}{total} {self._unit}{rate}")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _limit_threads(threads: int | None) -> None:
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    # what the user's shell or launcher has set counts: workers side by side must not all take every core
    count = threads or int(os.environ.get("OMP_NUM_THREADS") or available)
    # read by BLAS and OpenMP when numpy and torch are imported, which is later
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(count))
    import torch

    torch.set_num_threads(count)


def _seed_everything(seed: int) -> None:
    # needed by deterministic cuBLAS, and read when CUDA starts
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import numpy as np
    import torch

    random.seed(seed)
    # libraries that we call (datasets, transformers) draw from the global generator
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
