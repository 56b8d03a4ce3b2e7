"""Training of modulators against a bare pass of the frozen model: time per step and peak memory.

    python -m benchmarks.bench_modulators             # the testbed's model, and GPT-2 small of random weights
    python -m benchmarks.bench_modulators --quick     # the testbed's model alone (seconds)

Bare: forward pass, loss and backward pass of the frozen model down to the input of its first block, which is the least
that training anything before that block needs. The others are whole steps of train_modulator.py's own trainer:
modulator attached, forward, backward, clipping, AdamW. LoRA has as many trained numbers as the residual modulator has
in its projection and the vectors of the batch's tokens (the whole table of GPT-2 would be LoRA of a rank above 60).
Forward: the modulated pass alone, without gradients, against the frozen one. All see the same batch in the same process
and take turns, on one thread; times are CPU time (of the wall with --device cuda), and ratios are medians over turns of
what met the same noise. Peak memory is that of a step above what the process holds before it, weights and moments of
AdamW included: pages as the kernel counts them, in a process of its own for each (with cuda: of torch's allocator).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from benchmarks.bench_collect import median_ratio, model_config
from src.hook_points import HookPoint
from src.models import LanguageModel, attach, wrap_model
from src.modulators.adapters import lora_of_size
from src.modulators.field import FieldModulator, FieldShape
from src.modulators.modulator import Modulator
from src.modulators.residual import ResidualModulator
from src.modulators.training.examples import Example, example_losses
from src.modulators.training.trainer import ModulatorTraining, TrainingSettings, step_losses
from src.report.tables import Cell, Table
from src.report.terminal import print_table

ROOT = Path(__file__).resolve().parents[1]
BARE, FROZEN = "bare frozen forward + backward", "frozen forward"
TRAINED = ("residual", "residual, table as it is", "field", "LoRA")
WIDTH = 64
N_STEPS = 10_000  # of the schedule: far from its end


@dataclass(frozen=True)
class Setting:
    """A model and a batch."""

    name: str
    n_sequences: int
    n_positions: int


SETTINGS = {"testbed": Setting("testbed", 16, 128), "gpt2": Setting("gpt2", 4, 64)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the testbed's model alone")
    parser.add_argument("--only", choices=list(SETTINGS), help="one of the models")
    parser.add_argument("--repeats", type=int, help="turns (default: 15 of the testbed's model, 5 of GPT-2)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", nargs=2, metavar=("MODEL", "WHAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    if arguments.memory_of:
        name, what = arguments.memory_of
        print(json.dumps(peak_memory(SETTINGS[name], what, arguments.device)))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 130
    only = "testbed" if arguments.quick else arguments.only
    for name in [only] if only else SETTINGS:
        setting = SETTINGS[name]
        repeats = arguments.repeats or (15 if name == "testbed" else 5)
        for table in measured(setting, arguments.device, repeats):
            print_table(table, console)


def measured(setting: Setting, device: str, repeats: int) -> Iterator[Table]:
    model, batch = loaded(setting, device), examples(setting)
    shape = f"{model.n_layers} layers of {model.d_model}, {setting.n_sequences} x {setting.n_positions} tokens"
    steps = {what: step(model, batch, what) for what in (BARE, *TRAINED)}
    times = in_turns(steps, model.device, repeats)
    memory = {what: in_own_process(setting, what, device) for what in steps}
    rows: list[list[Cell]] = [
        [
            what,
            steps[what].n_trained or None,
            1e3 * statistics.median(times[what]),
            median_ratio(times[what], times[BARE]),
            memory[what] / 1e6,
            memory[what] / memory[BARE],
        ]
        for what in steps
    ]
    columns = ["step", "trained", "ms", "time / bare", "peak memory (MB)", "memory / bare"]
    yield Table(f"A step of training: {setting.name}", columns, rows, f"{shape}; medians of {repeats} turns")
    passes = {FROZEN: forward(model, batch, None)} | {what: forward(model, batch, what) for what in TRAINED}
    times = in_turns(passes, model.device, repeats)
    rows = [[what, 1e3 * statistics.median(times[what]), median_ratio(times[what], times[FROZEN])] for what in passes]
    yield Table(f"Forward alone: {setting.name}", ["pass", "ms", "time / frozen"], rows, f"{shape}; no gradients")


def loaded(setting: Setting, device: str) -> LanguageModel:
    if setting.name == "testbed":
        module = AutoModelForCausalLM.from_pretrained(ROOT / "testbed/models/base", dtype=torch.float32)
    else:
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2"), dtype=torch.float32)
    cast(torch.nn.Module, module).to(device)
    return wrap_model(module, model_config(setting.name))


def examples(setting: Setting) -> list[Example]:
    d_vocab = 557 if setting.name == "testbed" else 50257
    draws = np.random.default_rng(0)
    ids = draws.integers(5, d_vocab, (setting.n_sequences, setting.n_positions)).astype(np.int32)
    predicted = np.arange(setting.n_positions) > 0
    return [Example(row, predicted, group) for group, row in enumerate(ids)]


def modulator(model: LanguageModel, batch: list[Example], what: str) -> Modulator:
    draws = torch.Generator().manual_seed(0)
    layers = range(model.n_layers)
    d_vocab = len(model.embedding)
    if what == "field":
        return FieldModulator(model.d_model, layers, FieldShape(), seed=0)
    if what == "LoRA":
        n_seen = len(np.unique(np.concatenate([example.input_ids for example in batch])))
        return lora_of_size(model, layers, WIDTH * (model.d_model + n_seen), seed=0)
    table = torch.randn(d_vocab, WIDTH, generator=draws)
    projection = torch.randn(model.d_model, WIDTH, generator=draws) / WIDTH**0.5
    known = torch.ones(d_vocab, dtype=torch.bool)
    return ResidualModulator(table, projection, known, layers, train_table=what == "residual")


@dataclass(eq=False)
class Turn:
    """What is timed. prepared: a context that is not."""

    prepared: Callable[[], AbstractContextManager[Any]]
    run: Callable[[], None]
    n_trained: int = 0
    seconds: list[float] = field(default_factory=list)


def step(model: LanguageModel, batch: list[Example], what: str) -> Turn:
    if what == BARE:
        return bare_step(model, batch)
    trained = modulator(model, batch, what).to(model.device)
    training = ModulatorTraining(trained, TrainingSettings(N_STEPS))
    return Turn(lambda: trained.attached(model), lambda: trained_step(training, model, batch), training.n_parameters)


def loss(model: LanguageModel, batch: list[Example]) -> Tensor:
    sums, counts = example_losses(model, batch)
    return sums.sum() / counts.sum()


def trained_step(training: ModulatorTraining, model: LanguageModel, batch: list[Example]) -> None:
    training.modulator.train()
    training.train(step_losses(model, training.modulator, batch, len(batch)))


def bare_step(model: LanguageModel, batch: list[Example]) -> Turn:
    leaves: list[Tensor] = []

    def begin(state: Tensor) -> Tensor:
        leaves[:] = [state.detach().requires_grad_()]
        return leaves[0]

    @contextmanager
    def prepared() -> Iterator[None]:
        handle = attach(model, HookPoint("resid_pre", 0), begin)
        yield
        handle.remove()

    def run() -> None:
        torch.autograd.grad(loss(model, batch), leaves)

    return Turn(prepared, run)


def forward(model: LanguageModel, batch: list[Example], what: str | None) -> Turn:
    @torch.no_grad()
    def run() -> None:
        loss(model, batch)

    if what is None:
        return Turn(nullcontext, run)
    attached = modulator(model, batch, what).to(model.device)
    return Turn(lambda: attached.attached(model), run)


def in_turns(turns: dict[str, Turn], device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Seconds of each in each round, after one of each that is not counted."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for round_number in range(repeats + 1):
        names = list(turns) if round_number % 2 else list(reversed(turns))
        for name in names:
            turn = turns[name]
            with turn.prepared():
                wait(device)
                start = clock()
                turn.run()
                wait(device)
                if round_number:
                    turn.seconds.append(clock() - start)
    return {name: turn.seconds for name, turn in turns.items()}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(setting: Setting, what: str, device: str) -> int:
    """Bytes of a second step above what is held before the first, moments of AdamW included."""
    model, batch = loaded(setting, device), examples(setting)
    turn = step(model, batch, what)
    before = torch.cuda.memory_allocated() if device == "cuda" else resident("VmRSS")
    with turn.prepared():
        turn.run()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak
        turn.run()
    return (torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")) - before


def resident(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{key}:")))


def in_own_process(setting: Setting, what: str, device: str) -> int:
    command = [sys.executable, "-m", "benchmarks.bench_modulators", "--device", device]
    command += ["--memory-of", setting.name, what]
    # pages of freed tensors go back to the system at once, so that the kernel counts what is held
    variables = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=variables)
    return json.loads(found.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
