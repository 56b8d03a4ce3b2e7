"""What capturing a conversation costs: CPU time against plain `generate` of the same, and bytes on the disk.

    python -m benchmarks.bench_scenario                # a llama of 4 layers, width 128; a GPT-2 small (minutes)
    python -m benchmarks.bench_scenario --models llama # the former only (half a minute)
    python -m benchmarks.bench_scenario --profile      # where the time of the default goes

Random weights, a ChatML template, greedy; the conversation is tests/fixtures/scenarios/emotional_conversation.yaml, its
first 6 messages with 20 tokens, and all 20 with 50. One thread; the contenders take turns; medians of CPU time, and the
median ratio to `generate` in the same turn with the least and the largest one in brackets. `generate` is transformers'
own (sdpa, cache), which makes no snapshot of any message. All contenders make the same tokens, which is checked.

One pass is the capture of the states at the end of every message and before every answer, with one generated token; one
forward per prefix is the plain forward pass of each prefix (header included) as the reference takes them, with nothing
kept of it. The reference's way (benchmarks/reference_scenario_way.py) keeps everything of each. What is written comes
from these runs: files of the default and of the full capture, the reference's beside them; last, the same arrays in
several formats.
"""

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerBase

from benchmarks.bench_collect import model_config
from benchmarks.reference_scenario_way import reference_way
from src.models import LanguageModel, wrap_model
from src.report.tables import Cell, Table
from src.report.terminal import print_table
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Prompt, load_scenario
from src.scenarios.states import Conversation
from src.scenarios.storage.run_folder import write_conversation, write_references
from tests.fixtures.chatml_model import SCENARIO, chatml_llama, chatml_tokenizer

PRESETS = {"default": CaptureSettings(), "full": CaptureSettings(preset="full")}
CASES = ((6, 20), (20, 50))  # messages, generated tokens


@dataclass(frozen=True)
class Case:
    """A conversation that a model goes on with."""

    name: str
    model: LanguageModel
    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    n_tokens: int

    @property
    def said(self) -> list[dict[str, str]]:
        """Its messages."""
        return [{"role": message.role, "content": message.content} for message in self.prompt.messages]

    def ids(self, end: int) -> Tensor:
        """The first `end` messages with the header that asks for an answer."""
        tokens = self.tokenizer.apply_chat_template(self.said[:end], add_generation_prompt=True, return_dict=False)
        return torch.tensor([tokens], device=self.model.device)

    def generate(self) -> list[int]:
        """What transformers' own generate goes on with."""
        module: Any = self.model.module
        ids = self.ids(len(self.said))
        made = module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=self.n_tokens, do_sample=False)
        return made[0, ids.shape[1] :].tolist()

    def capture(self, settings: CaptureSettings, n_tokens: int | None = None) -> Conversation:
        """What Strata keeps."""
        generation = GenerationSettings(max_new_tokens=n_tokens or self.n_tokens)
        return capture_conversation(self.model, self.tokenizer, "run", self.prompt, generation, settings)

    def forward_per_prefix(self) -> None:
        """Forward passes alone, nothing kept."""
        for end in range(1, len(self.said) + 1):
            self.model.module(self.ids(end), use_cache=False, logits_to_keep=1)


def llama() -> LanguageModel:
    return wrap_model(chatml_llama(), model_config("llama"))


def gpt2() -> LanguageModel:
    torch.manual_seed(0)
    config = GPT2Config(eos_token_id=2, bos_token_id=None, pad_token_id=0)
    module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return wrap_model(module, model_config("gpt2-small"))


MODELS: dict[str, Callable[[], LanguageModel]] = {"llama": llama, "gpt2": gpt2}


def cases(name: str, tokenizer: PreTrainedTokenizerBase) -> list[Case]:
    model, messages = MODELS[name](), load_scenario(SCENARIO).prompt[0].messages
    return [
        Case(f"{name}, {n} messages", model, tokenizer, Prompt(messages=messages[:n]), tokens) for n, tokens in CASES
    ]


def take_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each contender in each round, after a first call of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def ratio(above: list[float], below: list[float]) -> str:
    """Median over rounds, with the least and the largest."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"


def written(conversation: Conversation) -> int:
    """Bytes of the files of a conversation."""
    with tempfile.TemporaryDirectory(prefix="bench_scenario_") as folder:
        write_conversation(Path(folder), conversation)
        return n_bytes(Path(folder))


def n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def costs(case: Case, rounds: int, with_reference: bool) -> list[list[Cell]]:
    """Rows of the first table."""
    made = case.generate()
    if case.capture(PRESETS["default"]).generations[0].token_ids != made:
        raise SystemExit("the capture made other tokens than generate")
    contenders: dict[str, Callable[[], object]] = {"generate": case.generate}
    for name, settings in PRESETS.items():
        contenders[name] = lambda settings=settings: case.capture(settings)
        contenders[f"{name}, written"] = lambda settings=settings: written(case.capture(settings))
    if with_reference:
        contenders["reference's way"] = lambda: in_reference_way(case, {})
    contenders["states of all messages: one pass"] = lambda: case.capture(PRESETS["default"], n_tokens=1)
    contenders["one forward per prefix"] = case.forward_per_prefix
    seconds = take_turns(contenders, rounds)
    rows: list[list[Cell]] = []
    for name, measured in seconds.items():
        n_messages = len(case.said)
        per_message = "prefix" in name or "one pass" in name
        base = seconds["one forward per prefix" if per_message else "generate"]
        tokens = sum(case.ids(end).shape[1] for end in range(1, n_messages + 1)) if "prefix" in name else None
        rows.append(
            [
                case.name if name == "generate" else "",
                name,
                tokens or case.ids(n_messages).shape[1] + (0 if per_message else case.n_tokens),
                f"{1000 * statistics.median(measured):.0f}",
                "per prefix" if per_message else "generate",
                ratio(measured, base),
            ]
        )
    return rows


def in_reference_way(case: Case, references: dict[str, list[dict[str, str]]]) -> int:
    """Bytes of what the reference writes."""
    with tempfile.TemporaryDirectory(prefix="bench_scenario_") as folder:
        arguments = (case.model.module, case.tokenizer, case.said, references, case.n_tokens, Path(folder))
        if reference_way(*arguments)[: case.n_tokens] != case.generate():
            raise SystemExit("the reference's way made other tokens than generate")
        return n_bytes(Path(folder))


def sizes(case: Case) -> list[list[Cell]]:
    """Rows of the second table: with all nine references, as the scenario has them."""
    states = load_scenario(SCENARIO).reference_states
    texts = {state.label: [dict(role=m.role, content=m.content) for m in state.conversations[0]] for state in states}
    theirs = in_reference_way(case, texts)
    rows: list[list[Cell]] = [[case.name, "reference's way", f"{theirs / 1e6:.2f}", "1"]]
    for name, settings in PRESETS.items():
        with tempfile.TemporaryDirectory(prefix="bench_scenario_") as folder:
            for part in ("run", "references"):
                (Path(folder) / part).mkdir()
            write_conversation(Path(folder) / "run", case.capture(settings))
            references = capture_references(case.model, case.tokenizer, states, settings)
            write_references(Path(folder) / "references", references)
            mine = n_bytes(Path(folder))
        rows.append(["", name, f"{mine / 1e6:.2f}", f"1/{theirs / mine:.1f}"])
    return rows


def formats(conversation: Conversation, name: str, rounds: int) -> list[list[Cell]]:
    """Rows of the third table: the arrays of one capture, as they are stacked, in several formats."""
    groups = {"snapshots": conversation.snapshot_rows, "steps": conversation.generations[0].rows}
    if conversation.token_rows is not None:
        groups["tokens"] = conversation.token_rows
    arrays = {
        f"{group}.{key}": array.contiguous() for group, rows in groups.items() for key, array in rows.arrays.items()
    }
    total = sum(array.numel() * array.element_size() for array in arrays.values())
    plain = {key: array.numpy() for key, array in arrays.items()}

    def as_zarr(folder: Path, **options: object) -> None:
        root = zarr.create_group(folder / "states.zarr", overwrite=True)
        for key, array in plain.items():
            root.create_array(key, data=array, chunks=array.shape, **options)  # pyright: ignore[reportArgumentType]

    with tempfile.TemporaryDirectory(prefix="bench_scenario_") as place:
        folder = Path(place)
        writers: dict[str, Callable[[Path], object]] = {
            "safetensors": lambda where: save_file(arrays, where / "states.safetensors"),
            "npz, stored": lambda where: np.savez(where / "states.npz", **plain),  # pyright: ignore[reportArgumentType]
            "npz, deflated": lambda where: np.savez_compressed(where / "states.npz", **plain),  # pyright: ignore[reportArgumentType]
            "zarr, zstd": lambda where: as_zarr(where),
            "zarr, no codec": lambda where: as_zarr(where, compressors=None),
        }
        for index in range(len(writers)):
            (folder / str(index)).mkdir()
        runs = {
            writer: lambda write=write, index=index: write(folder / str(index))
            for index, (writer, write) in enumerate(writers.items())
        }
        seconds = take_turns(runs, rounds)
        return [
            [
                f"{name}, {total / 1e6:.2f} MB in {len(arrays)} arrays" if index == 0 else "",
                writer,
                f"{1000 * statistics.median(seconds[writer]):.1f}",
                f"{n_bytes(folder / str(index)) / total:.2f}",
            ]
            for index, writer in enumerate(writers)
        ]


def profile(case: Case) -> None:
    """Where the CPU time of the default goes."""
    case.capture(PRESETS["default"])
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(case.capture, PRESETS["default"])
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--messages", nargs="+", type=int, choices=[n for n, _ in CASES], help="these conversations")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--profile", action="store_true", help="where the time of the default goes, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tokenizer = chatml_tokenizer()
    cost_rows: list[list[Cell]] = []
    size_rows: list[list[Cell]] = []
    format_rows: list[list[Cell]] = []
    for name in arguments.models:
        for case in cases(name, tokenizer):
            if arguments.messages and len(case.said) not in arguments.messages:
                continue
            if arguments.profile:
                profile(case)
                continue
            cost_rows += costs(case, arguments.rounds, with_reference=name == "llama")
            if name == "llama":
                size_rows += sizes(case)
                for preset, settings in PRESETS.items():
                    kept = case.capture(settings)
                    format_rows += formats(kept, f"{preset}, {len(case.said)} messages", arguments.rounds)
    if arguments.profile:
        return
    console = Console()
    if not console.is_terminal:
        console.width = 140
    columns = ["case", "what", "tokens", "CPU ms", "against", "ratio"]
    title = f"CPU time, one thread, medians of {arguments.rounds} rounds"
    print_table(Table(title, columns, cost_rows), console)
    if size_rows:
        columns = ["case", "what", "MB", "of the reference's"]
        print_table(Table("On the disk, nine references included", columns, size_rows), console)
        print_table(Table("Formats", ["arrays", "format", "CPU ms", "bytes / array bytes"], format_rows), console)


if __name__ == "__main__":
    main()
