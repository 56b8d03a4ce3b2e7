"""The whole profile of random weights: CPU time against the straightforward way, and peak memory of a large model.

GPT-2 small (124 million parameters, float32) and a shape of 1.5 billion (Qwen2.5's, float16), whose shards are written
here one at a time. The straightforward way is what the notebook does: the model in memory, svdvals of each matrix in
float32, all parameters joined for the shares, W_q W_k' dense with its symmetric eigenvalues, all pairs of layers in a
double loop; and no null beside anything. Each measurement is a process of its own on one thread; peak memory is
the kernel's count of resident pages, imports included.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from src.report.tables import Cell, Table
from src.report.terminal import print_table

_SHARD_BYTES = 400e6
_QWEN = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip


def measure(console: Console) -> None:
    """Measure, and print a table. STRATA_LARGE=0 leaves the large model out (8 minutes of CPU time, 3 GB of disk)."""
    rows: list[list[Cell]] = []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "gpt2"
        write_random("gpt2", {}, small, torch.float32)
        for name, way in (
            ("Strata, with circuits", "strata"),
            ("Strata, weights alone", "alone"),
            ("straightforward", "plain"),
        ):
            found = _in_a_process(way, small)
            rows.append(["GPT-2 small", name, found["cpu"], found["memory"] / 1e9])
        if os.environ.get("STRATA_LARGE", "1") != "0":
            large = Path(folder) / "large"
            write_random("qwen2", _QWEN, large, torch.float16)
            found = _in_a_process("strata", large)
            rows.append(["1.5 billion", "Strata, with circuits", found["cpu"], found["memory"] / 1e9])
    columns = ["model", "way", "CPU seconds", "peak memory (GB)"]
    print_table(Table("Profile of a model's weights", columns, rows, "one thread"), console)


def write_random(kind: str, keys: dict, folder: Path, dtype: torch.dtype) -> None:
    """A checkpoint of random weights, shard by shard: the model is never in memory."""
    config = AutoConfig.for_model(kind, **keys, architectures=None)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(skeleton).__name__]
    folder.mkdir()
    config.save_pretrained(folder)
    index: dict[str, str] = {}
    for number, shard in enumerate(_shards(skeleton.named_parameters(), dtype)):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _shards(parameters: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shard: dict[str, Tensor] = {}
    for name, parameter in parameters:
        gain = parameter.ndim == 1 and name.endswith("weight")
        noise = torch.empty(parameter.shape, dtype=dtype).normal_(generator=generator)
        shard[name] = noise.mul_(0.1).add_(1) if gain else noise.mul_(0.02)
        if sum(value.nbytes for value in shard.values()) > _SHARD_BYTES:
            yield shard
            shard = {}
    if shard:
        yield shard


def _in_a_process(way: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.geometry.weights", way, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def _strata(folder: Path, circuits: bool) -> None:
    import measure_geometry
    from src.config.geometry.stage import GeometryConfig
    from src.stage.entry import compose, run_stage

    with tempfile.TemporaryDirectory() as artifacts:
        words = ["analysis=weights", f"model.path={folder}", "model.name=random", f"artifacts_dir={artifacts}"]
        words += ["threads=1", "device=cpu", f"weights.circuits={str(circuits).lower()}"]
        config = compose("measure_geometry", words)
        run_stage(measure_geometry.run, GeometryConfig, "measure_geometry", config, words)


def _plain(folder: Path) -> None:
    """The notebook's battery, for GPT-2."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    matrices = {name: value.detach() for name, value in model.named_parameters() if value.ndim == 2}
    for value in matrices.values():
        torch.linalg.svdvals(value)
    joined = torch.cat([value.detach().flatten() for value in model.parameters()]).abs()
    for threshold in (1e-6, 1e-4, 1e-3, 1e-2, 1e-1):
        (joined < threshold).float().mean()
    layers = model.transformer.h
    for block in layers:
        query, key, _ = block.attn.c_attn.weight.detach().T.chunk(3)
        product = query @ key.T
        torch.linalg.svdvals(product)
        torch.linalg.eigvalsh((product + product.T) / 2)
        torch.mul(block.mlp.c_fc.weight.detach().norm(dim=0), block.mlp.c_proj.weight.detach().norm(dim=1))
    for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        weights = [block.get_submodule(part).weight.detach().flatten() for block in layers]
        for one in weights:
            for other in weights:
                torch.nn.functional.cosine_similarity(one, other, dim=0)


_WAYS: dict[str, Callable[[Path], None]] = {
    "strata": lambda folder: _strata(folder, True),
    "alone": lambda folder: _strata(folder, False),
    "plain": _plain,
}


def _run(way: str, folder: Path) -> None:
    torch.set_num_threads(1)
    began = time.process_time()
    _WAYS[way](folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu": time.process_time() - began, "memory": used.ru_maxrss * 1024}))


if __name__ == "__main__":
    _run(sys.argv[1], Path(sys.argv[2]))
