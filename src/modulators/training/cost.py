"""What a training step costs, beside a forward and backward pass of the frozen model alone."""

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from src.hook_points import HookPoint
from src.models import LanguageModel, attach
from src.modulators.modulator import Modulator
from src.modulators.training.examples import Example, example_losses


@dataclass(frozen=True)
class StepCost:
    """One forward and backward pass of one batch: with the modulator, and of the frozen model alone.

    The frozen model's loss goes back to the input of the first layer before which the modulator stands, so both passes
    go through the same blocks.

    Attributes:
        seconds, frozen_seconds: medians; of CPU time on a CPU, which other processes do not lengthen.
        bytes, frozen_bytes: the peak of what the accelerator's allocator held above what was there before; on a CPU
            (measured_peak is false) what the graph holds for the backward pass, the model's weights left out.
        measured_peak: which of these.
        n_sequences, n_positions: of the batch.
        repeats: passes of each, in turns.
    """

    seconds: float
    frozen_seconds: float
    bytes: int
    frozen_bytes: int
    measured_peak: bool
    n_sequences: int
    n_positions: int
    repeats: int

    @property
    def time_ratio(self) -> float:
        """With the modulator over without."""
        return self.seconds / self.frozen_seconds

    @property
    def memory_ratio(self) -> float:
        """With the modulator over without."""
        return self.bytes / max(self.frozen_bytes, 1)


def measure_step(
    model: LanguageModel,
    modulator: Modulator,
    examples: Sequence[Example],
    cast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    repeats: int = 5,
) -> StepCost:
    """Run both passes in turns, after one of each that is not counted. Nothing is changed or trained.

    Args:
        model: frozen.
        modulator: on the model's device, not attached now.
        examples: of one forward pass.
        cast: a context of both passes (autocast).
        repeats: of each.
    """
    was_training = modulator.training
    modulator.eval()  # what a modulator keeps account of in training is not moved
    passes = _ModulatedPass(model, modulator, examples, cast), _FrozenPass(model, modulator, examples, cast)
    seconds: tuple[list[float], list[float]] = [], []
    try:
        sizes = [_memory(each) for each in passes]
        for _ in range(repeats):
            for each, taken in zip(passes, seconds, strict=True):
                taken.append(_seconds(each))
    finally:
        modulator.train(was_training)
    return StepCost(
        seconds=statistics.median(seconds[0]),
        frozen_seconds=statistics.median(seconds[1]),
        bytes=sizes[0],
        frozen_bytes=sizes[1],
        measured_peak=_counts_memory(model.device),
        n_sequences=len(examples),
        n_positions=max(len(example.input_ids) for example in examples),
        repeats=repeats,
    )


class _Pass(ABC):
    """A forward and backward pass. Used as a context, so that what is put on the model is not timed."""

    def __init__(
        self,
        model: LanguageModel,
        modulator: Modulator,
        examples: Sequence[Example],
        cast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.model, self.modulator, self._examples, self._cast = model, modulator, examples, cast

    @abstractmethod
    def prepared(self) -> AbstractContextManager[Any]:
        """The model as it has to be."""

    @abstractmethod
    def leaves(self) -> Sequence[Tensor]:
        """What the backward pass goes to, after the forward pass."""

    def run(self) -> None:
        with self._cast():
            sums, counts = example_losses(self.model, self._examples)
        torch.autograd.grad(sums.sum() / counts.sum(), self.leaves(), allow_unused=True)


class _ModulatedPass(_Pass):
    def prepared(self) -> AbstractContextManager[Any]:
        return self.modulator.attached(self.model)

    def leaves(self) -> Sequence[Tensor]:
        return [parameter for parameter in self.modulator.parameters() if parameter.requires_grad]


class _FrozenPass(_Pass):
    _leaf: Tensor

    @contextmanager
    def prepared(self) -> Iterator[None]:
        def begin(state: Tensor) -> Tensor:
            self._leaf = torch.zeros_like(state, requires_grad=True)
            return state + self._leaf

        handle = attach(self.model, HookPoint("resid_pre", min(self.modulator.layers)), begin)
        try:
            yield
        finally:
            handle.remove()

    def leaves(self) -> Sequence[Tensor]:
        return [self._leaf]


def _seconds(what: _Pass) -> float:
    device = what.model.device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    with what.prepared():
        _wait(device)
        start = clock()
        what.run()
        _wait(device)
        return clock() - start


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _counts_memory(device: torch.device) -> bool:
    return device.type == "cuda"


def _memory(what: _Pass) -> int:
    device = what.model.device
    with what.prepared():
        if _counts_memory(device):
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            what.run()
            return torch.cuda.max_memory_allocated(device) - before
        weights = {weight.untyped_storage().data_ptr() for weight in what.model.module.parameters()}
        held: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            what.run()
        return sum(held.values())
