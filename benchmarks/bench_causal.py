"""Causal evaluations, against a hooked forward pass for each edit, and against the way of the published reference.

    python -m benchmarks.bench_causal             # a random llama of 12 layers, d_model 256 (minutes)
    python -m benchmarks.bench_causal --quick     # smaller (seconds)

What is evaluated: see benchmarks/causal_workloads.py. All contenders make the same edits of the same sequences, share
the weights and the machine, and take turns; medians are shown. Threads are torch's default, as for a user; with
OMP_NUM_THREADS=1 the reference's numpy does not compete with torch for the cores.

Hooked batches are what one would write without this project: the edit by a forward hook, at the same batch size, one
forward pass for each condition and a clean one, and the same scores (NLL, KL to the clean distribution, agreement) from
the logits. Lean batch size 1 is the same one sequence at a time, with NLL alone. The reference's way is the manner of
the published code (benchmarks/reference_causal_way.py): batch size 1, NLL alone, the text streamed, skipped through
(100 documents for each sequence, as 10,000 for its 100) and tokenised again for every condition, operators asked
through numpy and scikit-learn, a loop over positions that writes. The others tokenise once, which is in their time. The
arithmetic is counted: matrix products of blocks and vocabulary head of hooked batches over those that Strata's scores
need, which are the layers after the edit at the positions from the first edit on.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.bench_collect import median_ratio, model_config
from benchmarks.causal_workloads import NAMES, Workload, workloads
from benchmarks.reference_causal_way import Text, reference_way
from src.causal.interventions import Constant, Transport
from src.causal.perplexity import Condition, ConditionScorer
from src.hook_points import HookPoint
from src.models import LanguageModel, wrap_model
from src.report.tables import Cell, Table
from src.report.terminal import print_table

SKIPPED_PER_SEQUENCE = 100

Scores = list[Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast is it")
    parser.add_argument("--repeats", type=int, default=3, help="times that each contender runs (default: 3)")
    parser.add_argument("--layer", type=int, help="that is edited, but for readme_pairs (default: the middle one)")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences, in one batch (default: 8)")
    parser.add_argument("--only", nargs="*", choices=NAMES, help="these evaluations")
    parser.add_argument("--rows-per-pass", type=int, help="of Strata (default: what suits the device)")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    model = random_llama(quick=arguments.quick, device=arguments.device)
    target = HookPoint("resid_post", model.n_layers // 2 if arguments.layer is None else arguments.layer)
    length, vocabulary = (128, model.module.config.vocab_size) if arguments.quick else (256, 4096)
    rows: list[list[Cell]] = []
    difference = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path, n_sequences = Path(folder) / "text.jsonl", arguments.batch_size
        text = Text.write(path, vocabulary, SKIPPED_PER_SEQUENCE * n_sequences, n_sequences, length)
        for workload in workloads(model, target):
            if workload.name in (arguments.only or NAMES):
                run = measure(workload, contenders(model, workload, text, arguments.rows_per_pass), arguments.repeats)
                ratio = arithmetic_saved(model, workload, length)
                rows += table_rows(workload, run, n_sequences * length, ratio)
                difference = max(difference, largest_difference(run))
    caption = (
        f"Random llama, {model.n_layers} layers x {model.d_model}, {n_sequences} sequences of {length} tokens, "
        f"edits of {target} (readme_pairs: of four layers); {torch.get_num_threads()} threads on {model.device}, "
        f"medians of {arguments.repeats} turns. Arithmetic: of hooked batches over Strata's. Largest difference of a "
        f"sequence's NLL: {difference:.1e}."
    )
    columns = [
        "edits",
        "what",
        "seconds",
        "CPU seconds",
        "tokens x conditions / s",
        "time / Strata's",
        "CPU time / Strata's",
        "arithmetic / Strata's",
    ]
    console = Console()
    if not console.is_terminal:
        console.width = 160
    print_table(Table("Causal evaluation", columns, rows, caption), console)


def contenders(
    model: LanguageModel, workload: Workload, text: Text, rows_per_pass: int | None
) -> dict[str, Callable[[], Scores]]:
    conditions = workload.conditions

    def ids() -> Tensor:
        return torch.cat(list(text.sequences())).to(model.device)

    return {
        "Strata": lambda: strata(model, conditions, ids(), rows_per_pass),
        "hooked batches": lambda: hooked_batches(model, conditions, ids()),
        "hooked, lean batch size 1": lambda: hooked_singly(model, conditions, ids()),
        "reference's way": lambda: reference_way(model, conditions, workload.null_operators, text),
    }


def random_llama(*, quick: bool, device: str) -> LanguageModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 172, "vocab_size": 512}
    if not quick:
        sizes = {"hidden_size": 256, "num_hidden_layers": 12, "intermediate_size": 688, "vocab_size": 4096}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model("llama", **sizes, **heads)
    module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(device)
    return wrap_model(module, model_config("random-llama"))


def strata(model: LanguageModel, conditions: list[Condition], ids: Tensor, rows_per_pass: int | None) -> Scores:
    scores = ConditionScorer(model, conditions, rows_per_pass).score(ids, torch.ones_like(ids))
    return list(scores.nll)


def hooked_batches(model: LanguageModel, conditions: list[Condition], ids: Tensor) -> Scores:
    """One forward pass for each condition; what operators read is captured in the clean one."""
    sources = {point for condition in conditions for point in condition.intervention.sources}
    states, logits = clean_pass(model, ids, sources)
    clean_log_p = logits[:, :-1].log_softmax(-1)
    probability, best = clean_log_p.exp(), clean_log_p.argmax(-1)
    found: Scores = []
    for condition in conditions:
        with editing(model, condition, states):
            log_p = model.module(input_ids=ids, use_cache=False).logits[:, :-1].log_softmax(-1)
        found.append(-log_p.gather(-1, ids[:, 1:, None])[..., 0])
        (probability * (clean_log_p - log_p)).sum(-1)
        _ = log_p.argmax(-1) == best
    return found


def hooked_singly(model: LanguageModel, conditions: list[Condition], ids: Tensor) -> Scores:
    """One sequence and one condition at a time; the source is captured in the pass that is edited."""
    found: Scores = []
    for condition in conditions:
        rows = []
        for row in ids.split(1):
            states: dict[HookPoint, Tensor] = {}
            with ExitStack() as hooks:
                for point in condition.intervention.sources:
                    hooks.callback(model.blocks[point.layer].register_forward_hook(keeping(states, point)).remove)
                hooks.enter_context(editing(model, condition, states))
                logits = model.module(input_ids=row, use_cache=False).logits
            rows.append(cross_entropy(logits[0, :-1], row[0, 1:], reduction="none"))
        found.append(torch.stack(rows))
    for row in ids.split(1):
        model.module(input_ids=row, use_cache=False)
    return found


def clean_pass(model: LanguageModel, ids: Tensor, points: set[HookPoint]) -> tuple[dict[HookPoint, Tensor], Tensor]:
    """Outputs of blocks in the pass that is not edited, and logits."""
    states: dict[HookPoint, Tensor] = {}
    with ExitStack() as hooks:
        for point in points:
            hooks.callback(model.blocks[point.layer].register_forward_hook(keeping(states, point)).remove)
        return states, model.module(input_ids=ids, use_cache=False).logits


def keeping(states: dict[HookPoint, Tensor], point: HookPoint) -> Callable[..., None]:
    """A forward hook that puts a block's output into `states`."""
    return lambda _module, _args, output: states.update({point: output})


def target_block(model: LanguageModel, condition: Condition) -> nn.Module:
    return model.blocks[condition.target.layer]


@contextmanager
def editing(model: LanguageModel, condition: Condition, states: dict[HookPoint, Tensor]) -> Iterator[None]:
    """A forward hook that overwrites the output of the target's block at every position."""
    edit = condition.intervention

    def overwrite(_module: Any, _args: Any, output: Tensor) -> Tensor:
        chosen = slice(None) if condition.positions is None else list(condition.positions)
        changed = output.clone()
        if isinstance(edit, Transport):
            changed[:, chosen] = edit.operator(states[edit.operator.source][:, chosen])
            return changed
        assert isinstance(edit, Constant)
        changed[:, chosen] = edit.value
        return changed

    handle = target_block(model, condition).register_forward_hook(overwrite)
    try:
        yield
    finally:
        handle.remove()


def arithmetic_saved(model: LanguageModel, workload: Workload, length: int) -> float:
    """Products of hooked batches over those that the same scores need, per token."""
    block = sum(weight.numel() for weight in model.blocks[0].parameters() if weight.ndim == 2)
    block += model.d_model * length  # scores and values of attention, half of which a causal mask leaves
    head = model.d_model * model.module.config.vocab_size
    whole, needed = model.n_layers * block + head, 0.0
    for condition in workload.conditions:
        after = model.n_layers - 1 - condition.target.layer
        needed += (1 - min(condition.positions or (0,)) / length) * (after * block + head)
    return (1 + len(workload.conditions)) * whole / (whole + needed)


@dataclass
class Run:
    """What one contender took in each of its turns, and what it found in the last."""

    scores: Scores = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def measure(workload: Workload, contenders: dict[str, Callable[[], Scores]], repeats: int) -> dict[str, Run]:
    """Let the contenders take turns."""
    runs = {name: Run() for name in contenders}
    progress = Console(stderr=True, highlight=False, style="dim")
    contenders["Strata"]()  # warms up
    for turn in range(repeats):
        for name in reversed(contenders) if turn % 2 else contenders:
            start, cpu_start = time.perf_counter(), time.process_time()
            runs[name].scores = contenders[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            runs[name].seconds.append(time.perf_counter() - start)
            runs[name].cpu_seconds.append(time.process_time() - cpu_start)
            took = f"{runs[name].seconds[-1]:.2f} s, {runs[name].cpu_seconds[-1]:.2f} s of CPU"
            progress.print(f"{workload.name}, turn {turn + 1} of {repeats}: {name} {took}")
    return runs


def table_rows(workload: Workload, runs: dict[str, Run], tokens: int, arithmetic: float) -> list[list[Cell]]:
    ours = runs["Strata"]
    return [
        [
            workload.name,
            name,
            statistics.median(run.seconds),
            statistics.median(run.cpu_seconds),
            round(tokens * len(workload.conditions) / statistics.median(run.seconds)),
            None if run is ours else median_ratio(run.seconds, ours.seconds),
            None if run is ours else median_ratio(run.cpu_seconds, ours.cpu_seconds),
            arithmetic if name == "hooked batches" else None,
        ]
        for name, run in runs.items()
    ]


def largest_difference(runs: dict[str, Run]) -> float:
    """Of the mean NLL of a sequence."""
    means = [torch.stack([nll if nll.ndim == 1 else nll.mean(1) for nll in run.scores]).cpu() for run in runs.values()]
    return max(float((means[0] - other).abs().max()) for other in means[1:])


if __name__ == "__main__":
    main()
