"""Twenty edits of one layer, against a hooked forward pass for each of them.

    python -m benchmarks.bench_causal             # a random llama of 12 layers, d_model 256 (a minute or two)
    python -m benchmarks.bench_causal --quick     # smaller (seconds)

All contenders edit resid_post of one layer at every position of the same sequences, and share the weights and
the machine; they take turns, and medians are shown. Hooked batches are what one would write without this project: the
edit by a forward hook, at the same batch size, one forward pass for each condition and a clean one, and the same scores
(NLL, KL to the clean distribution, agreement) from the logits. Lean batch size 1 is the same one sequence at a time,
with NLL alone. The reference's way is the manner of the published code (benchmarks/reference_causal_way.py): batch
size 1, the text streamed, skipped through and tokenised again for every condition, a scikit-learn prediction per
position, the loss that the model itself computes. The others tokenise once, which is in their time. The arithmetic
saved is counted: the products of the blocks and the vocabulary head of hooked batches over those of Strata.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.bench_collect import median_ratio, model_config
from benchmarks.reference_causal_way import Text, reference_way
from src.causal.interventions import Constant, Intervention, Transport
from src.causal.perplexity import Condition, ConditionScorer
from src.hook_points import HookPoint
from src.models import LanguageModel, wrap_model
from src.report.tables import Cell, Table
from src.report.terminal import print_table
from src.transport.operator import TransportOperator

N_CONDITIONS = 20
LEAP = 2

Scores = list[Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast is it")
    parser.add_argument("--repeats", type=int, default=3, help="times that each contender runs (default: 3)")
    parser.add_argument("--layer", type=int, help="that is edited (default: the middle one)")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences per batch (default: 8)")
    parser.add_argument(
        "--skip", type=int, default=1000, help="documents before the first (default: 1000; reference: 10000)"
    )
    parser.add_argument("--rows-per-pass", type=int, help="of Strata (default: what suits the device)")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    model = random_llama(quick=arguments.quick, device=arguments.device)
    target = HookPoint("resid_post", model.n_layers // 2 if arguments.layer is None else arguments.layer)
    length, vocabulary = (64, model.module.config.vocab_size) if arguments.quick else (256, 4096)
    conditions = [Condition(str(index), edit, target) for index, edit in enumerate(interventions(model, target))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.jsonl"
        text = Text.write(path, vocabulary, arguments.skip, arguments.batch_size, length)

        def ids() -> Tensor:
            return torch.cat(list(text.sequences())).to(model.device)

        contenders: dict[str, Callable[[], Scores]] = {
            "Strata": lambda: strata(model, conditions, ids(), arguments.rows_per_pass),
            "hooked batches": lambda: hooked_batches(model, conditions, ids()),
            "hooked, lean batch size 1": lambda: hooked_singly(model, conditions, ids()),
            "reference's way": lambda: reference_way(model, conditions, text),
        }
        rows = measure(contenders, arguments.repeats, arguments.batch_size * length)
        difference = largest_difference(contenders)
    body, total = arithmetic_saved(model, target, length)
    caption = (
        f"Random llama, {model.n_layers} layers x {model.d_model}, {arguments.batch_size} sequences of {length} "
        f"tokens after {arguments.skip:,} skipped documents, {N_CONDITIONS} edits of {target}; "
        f"{torch.get_num_threads()} threads on {model.device}, medians of {arguments.repeats} turns. Arithmetic saved "
        f"against hooked batches: {body:.2f} times in the blocks, {total:.2f} times with the vocabulary head. Largest "
        f"difference of a sequence's NLL between contenders: {difference:.1e}."
    )
    columns = ["what", "seconds", "CPU seconds", "tokens x conditions / s", "time / Strata's", "CPU time / Strata's"]
    console = Console()
    if not console.is_terminal:
        console.width = 140
    print_table(Table("Causal evaluation", columns, rows, caption), console)


def random_llama(*, quick: bool, device: str) -> LanguageModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 172, "vocab_size": 512}
    if not quick:
        sizes = {"hidden_size": 256, "num_hidden_layers": 12, "intermediate_size": 688, "vocab_size": 4096}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model("llama", **sizes, **heads)
    module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(device)
    return wrap_model(module, model_config("random-llama"))


def interventions(model: LanguageModel, target: HookPoint) -> Iterator[Intervention]:
    """Half operators, half constants."""
    draws = torch.Generator().manual_seed(1)
    source = HookPoint("resid_post", target.layer - LEAP)
    for index in range(N_CONDITIONS):
        bias = torch.randn(model.d_model, generator=draws).to(model.device)
        if index % 2:
            yield Constant(bias)
        else:
            weight = torch.eye(model.d_model) + 0.02 * torch.randn(model.d_model, model.d_model, generator=draws)
            yield Transport(TransportOperator(weight.to(model.device), 0.1 * bias, source, target, "random"))


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
        if isinstance(edit, Transport):
            return edit.operator(states[edit.operator.source])
        assert isinstance(edit, Constant)
        return edit.value.expand_as(output).clone()

    handle = target_block(model, condition).register_forward_hook(overwrite)
    try:
        yield
    finally:
        handle.remove()


def arithmetic_saved(model: LanguageModel, target: HookPoint, length: int) -> tuple[float, float]:
    """Products of hooked batches over those of Strata, per token: in the blocks, and with the vocabulary head."""
    block = sum(weight.numel() for weight in model.blocks[0].parameters() if weight.ndim == 2)
    block += model.d_model * length  # scores and values of attention, half of which a causal mask leaves
    head = model.d_model * model.module.config.vocab_size
    after = model.n_layers - 1 - target.layer
    passes = N_CONDITIONS + 1
    hooked, replayed = passes * model.n_layers * block, (model.n_layers + N_CONDITIONS * after) * block
    return hooked / replayed, (hooked + passes * head) / (replayed + passes * head)


def measure(contenders: dict[str, Callable[[], Scores]], repeats: int, tokens: int) -> list[list[Cell]]:
    """Let the contenders take turns; one row of the table for each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in contenders}
    progress = Console(stderr=True, highlight=False, style="dim")
    contenders["Strata"]()  # warms up
    for turn in range(repeats):
        for name in reversed(contenders) if turn % 2 else contenders:
            start, cpu_start = time.perf_counter(), time.process_time()
            contenders[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - cpu_start)
            took = f"{seconds[name][-1]:.2f} s, {cpu_seconds[name][-1]:.2f} s of CPU"
            progress.print(f"turn {turn + 1} of {repeats}: {name} {took}")
    return [
        [
            name,
            statistics.median(seconds[name]),
            statistics.median(cpu_seconds[name]),
            round(tokens * N_CONDITIONS / statistics.median(seconds[name])),
            None if name == "Strata" else median_ratio(seconds[name], seconds["Strata"]),
            None if name == "Strata" else median_ratio(cpu_seconds[name], cpu_seconds["Strata"]),
        ]
        for name in contenders
    ]


def largest_difference(contenders: dict[str, Callable[[], Scores]]) -> float:
    """Of the mean NLL of a sequence."""
    means = [torch.stack([nll if nll.ndim == 1 else nll.mean(1) for nll in run()]).cpu() for run in contenders.values()]
    return max(float((means[0] - other).abs().max()) for other in means[1:])


if __name__ == "__main__":
    main()
