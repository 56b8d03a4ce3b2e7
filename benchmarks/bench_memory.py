"""Peak memory of collecting, and of the pass that sums up moments, for 1, 4 and 16 times as many tokens.

    python -m benchmarks.bench_memory            # about two minutes
    python -m benchmarks.bench_memory --quick    # a quarter of the tokens

Each measurement is a process of its own: its peak resident memory as the kernel counts it, and how far that lies above
what the process held when imports, model and table were loaded. Parts have 8 MB; a part is in memory at most twice.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM

from src.activations import collect, job
from src.activations.passes import accumulate_moments
from src.activations.store import ActivationStore
from src.activations.workers import Worker
from src.artifacts import Plan, Provenance, open_artifact
from src.config.shared import ModelConfig
from src.hook_points import HookPoint
from src.models import wrap_model
from src.report.tables import Cell, Table
from src.report.terminal import print_table
from src.text import DocumentCounts, SequenceTable, TokenSequence, write_sequence_table

N_LAYERS, D_MODEL, D_VOCAB, LENGTH, BATCH_SIZE = 8, 128, 1000, 128, 8
PART_BYTES = 8 * 2**20
POINTS = tuple(HookPoint("resid_post", layer) for layer in range(N_LAYERS))
PROVENANCE = Provenance(config={}, seed=0, device="cpu", versions={}, git_revision=None, started_at="")
MODEL = ModelConfig(
    name="random-gpt2",
    path=None,
    revision=None,
    dtype="auto",
    blocks=None,
    stack="auto",
    attention=None,
    trust_remote_code=False,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the tokens")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, folder = arguments.measure
        print(json.dumps(measure(what, Path(folder))))
        return
    base = 32 if arguments.quick else 128
    console = Console()
    if not console.is_terminal:
        console.width = 140
    rows: list[list[Cell]] = []
    with tempfile.TemporaryDirectory(prefix="bench_memory_") as name:
        folders = {factor: Path(name) / f"{factor}x" for factor in (1, 4, 16)}
        for factor, folder in folders.items():
            write_table(folder, factor * base)
        for what in ("collecting", "moments"):
            first: dict[str, float] | None = None
            for factor, folder in folders.items():
                with console.status(f"{what}, {factor}x"):
                    found = in_own_process(what, folder)
                first = first or found
                parts, tokens = int(found["parts"]), int(found["tokens"])
                ratios = [found[key] / first[key] for key in ("peak", "above")]
                sizes = [found["store"], found["peak"], ratios[0], found["above"], ratios[1]]
                rows.append([what, f"{factor}x", tokens, parts, *sizes])
    columns = ["", "size", "tokens", "parts", "store MB", "peak MB", "to 1x", "above start MB", "to 1x"]
    print_table(Table(f"Peak memory, parts of {PART_BYTES / 2**20:g} MB", columns, rows), console)


def write_table(folder: Path, n_sequences: int) -> None:
    folder.mkdir()
    draws = np.random.default_rng(0)
    roles = np.zeros(LENGTH, np.uint8)
    ids = (draws.integers(1, D_VOCAB, LENGTH).astype(np.int32) for _ in range(n_sequences))
    write_sequence_table(folder, (TokenSequence(i, row, roles) for i, row in enumerate(ids)), DocumentCounts(), "made")


def in_own_process(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_memory", "--measure", what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def measure(what: str, folder: Path) -> dict[str, float]:
    """Do the work in this process, and tell its peak memory in MB."""
    return collect_store(folder) if what == "collecting" else sum_moments(folder)


def collect_store(folder: Path) -> dict[str, float]:
    shape = {"n_layer": N_LAYERS, "n_embd": D_MODEL, "n_head": 4, "vocab_size": D_VOCAB, "bos_token_id": 0}
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", eos_token_id=0, **shape)
    model = wrap_model(AutoModelForCausalLM.from_config(config, dtype=torch.float32), MODEL)
    table = SequenceTable(folder)
    layout = job.plan_layout(model, table, POINTS, "bfloat16", LENGTH, PART_BYTES, BATCH_SIZE)
    plan = Plan(folder, "activations", "store", {"layout": layout.as_json()}, name="store")
    settings = collect.CollectSettings(BATCH_SIZE, None, "error")
    start = psutil.Process().memory_info().rss
    with job.filling(plan, Worker(0, 1), overwrite=False):
        parts = range(layout.n_parts)
        collect.collect_parts(model, table, plan.path, layout, settings, parts, plan.fingerprint, lambda _n: None)
        assert job.finish(plan.path, layout, plan, PROVENANCE, None, lambda _draft: None)
    return report(ActivationStore(open_artifact(plan.path, "activations")), start)


def sum_moments(folder: Path) -> dict[str, float]:
    store = ActivationStore(open_artifact(folder / "activations" / "store", "activations"))
    pairs = [(a, b) for a in POINTS for b in POINTS if b.layer in (a.layer, a.layer + 1)]
    groups = np.arange(store.layout.n_sequences) % 7
    start = psutil.Process().memory_info().rss
    accumulate_moments(store, pairs, groups, 7, None, torch.device("cpu"), lambda _n: None)
    return report(store, start)


def report(store: ActivationStore, start: int) -> dict[str, float]:
    # kilobytes on Linux, bytes on a Mac
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "tokens": store.layout.n_tokens,
        "parts": store.layout.n_parts,
        "store": store.layout.n_tokens * store.layout.bytes_per_token / 1e6,
        "peak": peak / 1e6,
        "above": (peak - start) / 1e6,
    }


if __name__ == "__main__":
    main()
