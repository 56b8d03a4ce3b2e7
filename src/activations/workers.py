"""Several processes that fill one store: worker r of n makes the parts r, r + n, r + 2n, ..., with no coordinator."""

import os
from dataclasses import dataclass

from src.errors import StrataError


@dataclass(frozen=True)
class Worker:
    """One of `count` workers."""

    index: int
    count: int

    def share(self, parts: list[int]) -> list[int]:
        """The parts of this worker."""
        return [part for part in parts if part % self.count == self.index]


def choose_worker(num_workers: int | None, worker_index: int | None) -> Worker:
    """The worker that this process is: as configured, else as torchrun says (WORLD_SIZE, RANK), else the only one.

    Raises StrataError if the index is not below the number.
    """
    if num_workers is None or worker_index is None:
        num_workers, worker_index = _environment("WORLD_SIZE", 1), _environment("RANK", 0)
    if not 0 <= worker_index < num_workers:
        raise StrataError(f"worker_index={worker_index}: with num_workers={num_workers} it is 0 to {num_workers - 1}")
    return Worker(worker_index, num_workers)


def _environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise StrataError(
            f"the environment variable {name} is {text!r}, not a number: unset it, or start with torchrun"
        )
    return int(text)
