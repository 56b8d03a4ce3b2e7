"""Collecting all layers, against the forward pass alone and against SAELens and TransformerLens.

    python -m benchmarks.bench_collect             # a random model of GPT-2 small's shape, and the testbed (minutes)
    python -m benchmarks.bench_collect --quick     # a small random model (seconds)

Every contender sees the same weights and the same tokens in the same process; they take turns, and medians are shown.
The forward pass alone is the inner model (no vocabulary head) on the very batches that the collector makes, to its full
depth, with nothing recorded. Strata's time is that of a whole store: computing, checking, casting, compressing,
checksums, forcing to the disk, and sealing. The peers neither compress nor force to the disk nor make checksums.
"""

import argparse
import contextlib
import io
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from src.activations import collect, job
from src.activations.store import StoreLayout
from src.activations.workers import Worker
from src.artifacts import Plan, Provenance
from src.config.shared import DatasetConfig, ModelConfig
from src.hook_points import HookPoint
from src.models import LanguageModel, wrap_model
from src.report.tables import Cell, Table
from src.report.terminal import print_table
from src.text import (
    DocumentCounts,
    SequenceTable,
    TokenSequence,
    read_documents,
    tokenize_documents,
    write_sequence_table,
)

ROOT = Path(__file__).resolve().parents[1]
PART_BYTES = 64 * 2**20
PROVENANCE = Provenance(config={}, seed=0, device="cpu", versions={}, git_revision=None, started_at="")

Run = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A model and its tokens."""

    title: str
    model: LanguageModel
    table: SequenceTable
    batch_size: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast is it")
    parser.add_argument("--skip-peers", action="store_true", help="leave SAELens and TransformerLens out")
    parser.add_argument("--repeats", type=int, default=3, help="times that each contender runs (default: 3)")
    parser.add_argument("--storage-dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    logging.disable(logging.WARNING)
    console = Console()
    if not console.is_terminal:
        console.width = 140
    rows: list[list[Cell]] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench_collect_") as name:
        folder = Path(name)
        gpt2 = gpt2_case(folder / "gpt2", quick=arguments.quick)
        contenders = own_contenders(gpt2, folder, arguments.storage_dtype)
        if not arguments.skip_peers:
            contenders |= peer_contenders(gpt2, folder, notes)
        rows += measure(gpt2, contenders, arguments.repeats)
        testbed = testbed_case(folder / "testbed", quick=arguments.quick)
        contenders = own_contenders(testbed, folder, arguments.storage_dtype)
        rows += measure(testbed, contenders, arguments.repeats)
    columns = [
        "model (layers x d)",
        "what",
        "layers",
        "seconds",
        "tokens/s",
        "of forward",
        "by CPU time",
        "time / Strata's",
    ]
    caption = (
        f"Medians of {arguments.repeats} turns, {torch.get_num_threads()} threads, storage in "
        f"{arguments.storage_dtype}. Of forward: tokens/s as a share of those of the forward pass alone, by the clock "
        "and by the CPU time of all threads (which other work on the machine disturbs less). "
    )
    print_table(Table("Collecting activations", columns, rows, caption + " ".join(notes)), console)


def gpt2_case(folder: Path, *, quick: bool) -> Case:
    """A random model of GPT-2 small's shape and random tokens: sequences of equal length, as the peers need them."""
    sizes = {"n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 1000} if quick else {}
    n_sequences, length, batch_size = (16, 64, 4) if quick else (48, 256, 16)
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", bos_token_id=0, eos_token_id=0, **sizes)
    model = wrap_model(AutoModelForCausalLM.from_config(config, dtype=torch.float32), model_config("random-gpt2"))
    draws = np.random.default_rng(0)
    ids = draws.integers(1, config.vocab_size, (n_sequences, length), dtype=np.int32)
    sequences = (TokenSequence(index, row, np.zeros(length, np.uint8)) for index, row in enumerate(ids))
    title = f"random, {config.n_layer} x {config.n_embd}"
    return Case(title, model, write_table(folder, sequences), batch_size)


def testbed_case(folder: Path, *, quick: bool) -> Case:
    """The testbed's model on its held-out text, batched and padded as in a real run."""
    source = ROOT / "testbed" / "models" / "base"
    if (source / "model.safetensors").is_file():
        module = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        title = "testbed's"
    else:
        torch.manual_seed(0)
        heads = {"num_attention_heads": 5, "num_key_value_heads": 5, "vocab_size": 1000}
        config = AutoConfig.for_model(
            "llama", hidden_size=160, num_hidden_layers=6, intermediate_size=432, bos_token_id=1, **heads
        )
        module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        title = "random"
    model = wrap_model(module, model_config("testbed"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    dataset = DatasetConfig(
        dataset_name=str(ROOT / "testbed" / "corpus" / "heldout.jsonl"),
        dataset_config=None,
        dataset_data_dir=None,
        dataset_revision=None,
        text_column_name="text",
        dataset_split=None,
    )
    limit = 5_000 if quick else 100_000
    sequences = tokenize_documents(read_documents(dataset), tokenizer, 256, num_tokens=limit)
    return Case(f"{title}, {model.n_layers} x {model.d_model}", model, write_table(folder, sequences), batch_size=16)


def model_config(name: str) -> ModelConfig:
    return ModelConfig(
        name=name,
        path=None,
        revision=None,
        dtype="auto",
        blocks=None,
        stack="auto",
        attention=None,
        trust_remote_code=False,
    )


def write_table(folder: Path, sequences: Iterator[TokenSequence]) -> SequenceTable:
    folder.mkdir()
    write_sequence_table(folder, sequences, DocumentCounts(), "benchmark")
    return SequenceTable(folder)


def own_contenders(case: Case, folder: Path, storage_dtype: str) -> dict[str, tuple[int, Run]]:
    """The forward pass alone, and Strata: (layers stored, what to run)."""
    model, table = case.model, case.table
    layers = range(model.n_layers)
    points = tuple(HookPoint("resid_post", layer) for layer in layers)
    length = int(table.lengths.max())
    layout = job.plan_layout(model, table, points, storage_dtype, length, PART_BYTES, case.batch_size)

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches(table, layout, case.batch_size):
                model.inner(*collect.right_padded(batch))

    def strata() -> None:
        plan = Plan(folder / "artifacts", "activations", "bench", {"case": case.title})
        settings = collect.CollectSettings(case.batch_size, None, "error")
        with job.filling(plan, Worker(0, 1), overwrite=False):
            parts = range(layout.n_parts)
            collect.collect_parts(model, table, plan.path, layout, settings, parts, plan.fingerprint, lambda _n: None)
            assert job.finish(plan.path, layout, plan, PROVENANCE, None, lambda _draft: None)

    return {"forward pass alone": (0, bare), "Strata": (model.n_layers, strata)}


def batches(table: SequenceTable, layout: StoreLayout, batch_size: int) -> Iterator[list[np.ndarray]]:
    """The batches of the collector, in its order."""
    for part in range(layout.n_parts):
        which = layout.sequences_of(part)
        sequences = [sequence.token_ids for sequence in table.read(which.start, which.stop)]
        lengths = np.array([len(ids) for ids in sequences])
        for batch in collect.batches_of_like_length(lengths, batch_size):
            yield [sequences[index] for index in batch]


def peer_contenders(case: Case, folder: Path, notes: list[str]) -> dict[str, tuple[int, Run]]:
    """TransformerLens and SAELens on the same weights and tokens, where they are installed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            hooked = hooked_transformer(case.model)
    except ImportError as error:
        notes.append(f"TransformerLens and SAELens were not measured ({error}).")
        return {}
    tokens = torch.from_numpy(np.stack([sequence.token_ids for sequence in case.table.read(0, case.table.n_sequences)]))
    contenders = {
        "TransformerLens run_with_cache": (case.model.n_layers, transformer_lens(case, hooked, tokens, folder))
    }
    notes.append(
        "TransformerLens: HookedTransformer.run_with_cache of all resid_post (no logits), cast to bfloat16 and saved "
        "with safetensors, one file per batch."
    )
    try:
        contenders["SAELens CacheActivationsRunner"] = (1, sae_lens(case, hooked, tokens, folder))
    except ImportError as error:
        notes.append(f"SAELens was not measured ({error}).")
        return contenders
    notes.append(
        "SAELens: CacheActivationsRunner stores one hook in a run, here the last layer in float32 (its default); all "
        f"{case.model.n_layers} layers are {case.model.n_layers} runs, which stop at their layer and so cost about "
        f"{(case.model.n_layers + 1) / 2:g} times as much as this one."
    )
    return contenders


def hooked_transformer(model: LanguageModel):  # noqa: ANN201 (a peer that may be missing)
    """TransformerLens' own model with the weights of ours."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig  # pyright: ignore[reportMissingImports]
    from transformer_lens.pretrained.weight_conversions.gpt2 import (  # pyright: ignore[reportMissingImports]
        convert_gpt2_weights,
    )

    shape = model.module.config
    config = HookedTransformerConfig(
        n_layers=shape.n_layer,
        d_model=shape.n_embd,
        n_ctx=shape.n_positions,
        d_head=shape.n_embd // shape.n_head,
        n_heads=shape.n_head,
        d_mlp=4 * shape.n_embd,
        d_vocab=shape.vocab_size,
        act_fn="gelu_new",
        eps=shape.layer_norm_epsilon,
        normalization_type="LN",
        original_architecture="GPT2LMHeadModel",
        default_prepend_bos=False,
        device="cpu",
    )
    hooked = HookedTransformer(config)
    hooked.load_and_process_state_dict(
        convert_gpt2_weights(model.module, config), fold_ln=False, center_writing_weights=False, fold_value_biases=False
    )
    ids = torch.arange(16)[None]
    last = config.n_layers - 1
    ours = model.inner(ids, torch.ones_like(ids), output_hidden_states=True).hidden_states[last]
    theirs = hooked.run_with_cache(ids, return_type=None)[1][f"blocks.{last - 1}.hook_resid_post"]
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)
    return hooked


def transformer_lens(case: Case, hooked, tokens: torch.Tensor, folder: Path) -> Run:  # noqa: ANN001
    from safetensors.torch import save_file

    def run() -> None:
        target = folder / "artifacts"
        target.mkdir()
        for index, batch in enumerate(tokens.split(case.batch_size)):
            with torch.inference_mode():
                _, cache = hooked.run_with_cache(
                    batch.long(), names_filter=lambda name: name.endswith("hook_resid_post"), return_type=None
                )
            states = {name: state.to(torch.bfloat16) for name, state in cache.items()}
            save_file(states, target / f"{index:05d}.safetensors")

    return run


def sae_lens(case: Case, hooked, tokens: torch.Tensor, folder: Path) -> Run:  # noqa: ANN001
    import datasets
    from sae_lens import (  # pyright: ignore[reportMissingImports]
        CacheActivationsRunner,
        CacheActivationsRunnerConfig,
        cache_activations_runner,
    )

    datasets.disable_progress_bars()
    dataset = datasets.Dataset.from_dict({"input_ids": tokens.numpy()})
    # it would load the model from the hub
    cache_activations_runner.load_model = lambda **_keys: hooked
    n_sequences, length = tokens.shape

    def run() -> None:
        config = CacheActivationsRunnerConfig(
            dataset_path="benchmark",
            model_name="benchmark",
            model_batch_size=case.batch_size,
            hook_name=f"blocks.{case.model.n_layers - 1}.hook_resid_post",
            d_in=case.model.d_model,
            training_tokens=tokens.numel(),
            context_size=length,
            new_cached_activations_path=str(folder / "artifacts"),
            shuffle=False,
            prepend_bos=False,
            device="cpu",
            # all in one buffer, which costs it least
            buffer_size_gb=(tokens.numel() * case.model.d_model * 4 + 1) / 1e9,
        )
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            stored = CacheActivationsRunner(config, override_dataset=dataset).run()
        assert len(stored) == n_sequences

    return run


def measure(case: Case, contenders: dict[str, tuple[int, Run]], repeats: int) -> list[list[Cell]]:
    """Let the contenders take turns; one row of the table for each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in contenders}
    progress = Console(stderr=True, highlight=False, style="dim")
    artifacts = Path(case.table.path).parents[1] / "artifacts"
    contenders["forward pass alone"][1]()  # warms up
    for turn in range(repeats):
        for name in reversed(contenders) if turn % 2 else contenders:
            start, cpu_start = time.perf_counter(), time.process_time()
            contenders[name][1]()
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - cpu_start)
            took = f"{seconds[name][-1]:.2f} s, {cpu_seconds[name][-1]:.2f} s of CPU"
            progress.print(f"{case.title}, turn {turn + 1} of {repeats}: {name} {took}")
            shutil.rmtree(artifacts, ignore_errors=True)
    tokens = case.table.n_tokens
    return [
        [
            case.title,
            name,
            n_layers or None,
            statistics.median(seconds[name]),
            round(tokens / statistics.median(seconds[name])),
            median_ratio(seconds["forward pass alone"], seconds[name]),
            median_ratio(cpu_seconds["forward pass alone"], cpu_seconds[name]),
            None if name == "Strata" else median_ratio(seconds[name], seconds["Strata"]),
        ]
        for name, (n_layers, _) in contenders.items()
    ]


def median_ratio(above: list[float], below: list[float]) -> float:
    """Median over turns, since in one turn both met the same noise of the machine."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


if __name__ == "__main__":
    main()
