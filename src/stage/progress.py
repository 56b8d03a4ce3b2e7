"""Progress bars with rate and remaining time, silent where nobody watches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

ItemT = TypeVar("ItemT")


@contextmanager
def progress_bar(console: Console, description: str, total: int | None, unit: str) -> Iterator["Advance"]:
    """A progress bar; silent when the console is no terminal. total: None = unknown.

    Yields a function that takes the number of units done since the last call.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), _Rate(unit), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield Advance(bar, task)


class Advance:
    """Moves a progress bar on."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, count: int) -> None:
        """Count units as done."""
        self._bar.advance(self._task, count)

    def skip(self, count: int) -> None:
        """Take units out of the total that need not be done after all."""
        total = self._bar.tasks[self._task].total
        if total is not None:
            self._bar.update(self._task, total=total - count)

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
