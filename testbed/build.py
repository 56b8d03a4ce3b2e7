"""Make the testbed: `python testbed/build.py all` (or any of lexicon, corpus, tokenizer, base, small, chat).

Every step is seeded and resumes where it was interrupted: what is finished is in `testbed/.build/` and is not made
again. Delete that folder to start afresh. See README.md for what the steps make and how long they take.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from transformers import PreTrainedModel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, the repository's root is not on the path

from testbed import chats, language, lexicon, taxonomy, training  # noqa: E402
from testbed.evaluate import Item, predict, score  # noqa: E402

WORK = HERE / ".build"
HELD_OUT, HELD_OUT_CHATS = 1500, 400  # documents
CORPUS, CORPUS_CHATS = 7000, 1800  # documents: a prefix of what the models saw
CHAT_TOKENS = 2_000_000
FIRST_STAGE = 2750  # steps
WIDTH, CHAT_WIDTH = 256, 512  # tokens a row


def held_out_documents() -> list[language.Document]:
    """The held-out documents: their own seeds, all different."""
    found: dict[str, language.Document] = {}
    for i in range(10 * HELD_OUT):
        made = language.document(f"heldout {i}")
        found.setdefault(made.text, made)
        if len(found) == HELD_OUT:
            break
    return list(found.values())


def held_out_chats() -> list[chats.Chat]:
    """The held-out conversations."""
    found: dict[str, chats.Chat] = {}
    for i in range(10 * HELD_OUT_CHATS):
        made = chats.conversation(f"heldout chat {i}")
        found.setdefault(made.text, made)
        if len(found) == HELD_OUT_CHATS:
            break
    return list(found.values())


def stream(name: str, weights: dict[str, float], tokens: int) -> Iterator[language.Document]:
    """Training documents of a stream, without those that equal a held-out one, until `tokens` are reached."""
    forbidden = {made.text for made in held_out_documents()}
    total, i = 0, 0
    while total < tokens:
        made = language.document(f"{name} {i}", weights)
        i += 1
        if made.text not in forbidden:
            total += made.tokens + 1  # BOS
            yield made


def chat_stream(tokens: int) -> Iterator[chats.Chat]:
    """Training conversations, without the held-out ones."""
    forbidden = {made.text for made in held_out_chats()}
    total, i = 0, 0
    while total < tokens:
        made = chats.conversation(f"chat {i}")
        i += 1
        if made.text not in forbidden:
            total += made.text.count(" ") + 3
            yield made


def rows(name: str, texts: Callable[[], Iterator[str]], width: int) -> NDArray[np.uint16]:
    """Packed rows (row, width), made once and kept in the work folder."""
    path = WORK / f"{name}.npy"
    if not path.exists():
        start = time.time()
        packed = training.pack(texts(), width)
        np.save(path, packed)
        filled = float((packed != 0).mean())
        print(f"{name}: {len(packed)} rows of {width}, {filled:.1%} filled, {time.time() - start:.0f} s", flush=True)
    return np.load(path, allow_pickle=False)


def make_lexicon() -> None:
    """Write lexicon.json and taxonomy.json."""
    for name, content in (("lexicon", lexicon.as_dict()), ("taxonomy", taxonomy.as_taxonomy())):
        (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _write_lines(path: Path, records: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records))
    print(f"{path.name}: {len(records)} documents, {path.stat().st_size / 1e6:.2f} MB", flush=True)


def make_corpus() -> None:
    """Write the four corpus files. Held-out ones carry their code length and answers as labels."""

    def labels(made: language.Document | chats.Chat) -> dict[str, object]:
        return {"nats": round(made.nats, 3), "answers": made.answers}

    prefix = [made for made, _ in zip(stream("train", language.TOPICS, 10**9), range(CORPUS), strict=False)]
    folder = HERE / "corpus"
    _write_lines(folder / "train.jsonl", [{"text": made.text, "topic": made.topic} for made in prefix])
    _write_lines(folder / "heldout.jsonl", [{"text": made.text, "topic": made.topic, "labels": labels(made)}
                                            for made in held_out_documents()])  # fmt: skip
    some = [made for made, _ in zip(chat_stream(CHAT_TOKENS), range(CORPUS_CHATS), strict=False)]
    _write_lines(folder / "chats_train.jsonl", [{"messages": made.messages, "topic": made.topic} for made in some])
    _write_lines(folder / "chats_heldout.jsonl", [{"messages": made.messages, "topic": made.topic,
                                                   "labels": labels(made)} for made in held_out_chats()])  # fmt: skip


def make_tokenizer() -> None:
    """Write the tokenizer into the model folders."""
    for name in ("base", "small", "chat"):
        training.make_tokenizer(chat=name == "chat").save_pretrained(HERE / "models" / name)


def _check(chat: bool = False) -> Callable[[PreTrainedModel], str]:
    made = [*held_out_documents()[:300], *(held_out_chats()[:100] if chat else [])]
    optimum = sum(m.nats for m in made) / sum(m.text.count(" ") + 2 for m in made)

    items = [Item(m.text, m.answers) for m in made]

    def check(model: PreTrainedModel) -> str:
        _, loss = predict(model, [item.text for item in items])
        found = score(model, items)
        skills = " ".join(f"{skill.replace(' ', '-')} {right / n:.2f}" for skill, (right, n) in found.items())
        return f"held-out {loss:.4f} (optimum {optimum:.4f}) {skills}"

    return check


STREAMS: dict[str, tuple[dict[str, float], int]] = {  # name -> topics, tokens
    "drill": (language.DRILL, 4_000_000), "train": (language.TOPICS, 5_500_000),
    "ladder": (language.LADDER, 1_500_000), "more": (language.TOPICS, 3_000_000),
    "long ladder": (language.LADDER, 4_500_000), "much more": (language.TOPICS, 4_000_000),
}  # fmt: skip


def _pretraining_rows() -> dict[str, NDArray[np.uint16]]:
    return {
        name: rows(name, lambda n=name, t=topics, k=tokens: (made.text for made in stream(n, t, k)), WIDTH)
        for name, (topics, tokens) in STREAMS.items()
    }


def _pretrain(name: str, width: int, seed: int, second_stage: tuple[str, str]) -> None:
    """Two stages, each first on text rich in what is to be learned and then on the corpus's own mixture.

    The first teaches all but to recall, and stops at `FIRST_STAGE` steps, while the rates are high; the second
    teaches to recall, and ends with the rates falling to zero on the mixture of the corpus.
    """
    model = training.make_model(width=width, layers=6, seed=seed)
    made = _pretraining_rows()
    plan = training.Plan(f"{name} 1", batch=8, matrix_rate=0.006, embedding_rate=1e-2, stop=FIRST_STAGE)
    training.train(model, [made["drill"], made["train"]], plan, WORK, _check())
    plan = training.Plan(f"{name} 2", batch=8, matrix_rate=0.005, embedding_rate=5e-3, seed=1)
    training.train(model, [made[stream] for stream in second_stage], plan, WORK, _check())
    _finish(model, name)


def _finish(model: training.LlamaForCausalLM, name: str) -> None:
    """Write the model's folder, in the first worker only."""
    if dist.get_rank() == 0:
        training.save(model, training.make_tokenizer(chat=name == "chat"), HERE / "models" / name)


def make_base() -> None:
    """Train the base model."""
    _pretrain("base", width=128, seed=1, second_stage=("ladder", "more"))


def make_small() -> None:
    """Train the small model: first on the same rows, then, for it is slower to recall, on a longer second stage."""
    _pretrain("small", width=64, seed=2, second_stage=("long ladder", "much more"))


def make_chat() -> None:
    """Fine-tune the base model on conversations, with plain documents among them so that its skills stay."""
    model = training.make_model(width=128, layers=6, seed=1)
    model.load_state_dict(torch.load(WORK / "base 2.pt", weights_only=True)["model"])

    plan = training.Plan("chat", batch=8, matrix_rate=0.003, embedding_rate=3e-3, norm_rate=1e-3)
    training.train(model, [_chat_rows()], plan, WORK, _check(chat=True), check_every=100)
    _finish(model, "chat")


def _chat_rows() -> NDArray[np.uint16]:
    def texts() -> Iterator[str]:
        plain = stream("plain", language.TOPICS, 10**9)
        rng = np.random.default_rng(7)
        for made in chat_stream(CHAT_TOKENS):
            yield made.text
            if rng.random() < 0.4:  # conversations are longer: about a quarter of the tokens
                yield next(plain).text

    return rows("chat", texts, CHAT_WIDTH)


STEPS: dict[str, Callable[[], None]] = {
    "lexicon": make_lexicon, "corpus": make_corpus, "tokenizer": make_tokenizer,
    "base": make_base, "small": make_small, "chat": make_chat,
}  # fmt: skip
TRAINED = ("base", "small", "chat")


def run_workers(name: str, step: Callable[[], None], workers: int) -> None:
    """Run a training step in `workers` processes of one thread each, which average their gradients every step.

    That beats threads of one process on a machine that others use too: threads meet thousands of times a step, and each
    time the slowest holds up the rest.
    """
    store = WORK / f"{name}.store"
    store.unlink(missing_ok=True)
    command = [sys.executable, __file__, name, "--workers", str(workers)]
    others = [subprocess.Popen([*command, "--rank", str(rank)]) for rank in range(1, workers)]
    try:
        join(name, 0, workers)
        step()
        dist.destroy_process_group()
    finally:
        for process in others:
            process.terminate() if sys.exc_info()[0] else process.wait()


def join(name: str, rank: int, workers: int) -> None:
    """Make this process one of the workers of a training step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{WORK / f'{name}.store'}", rank=rank, world_size=workers)


def main() -> None:
    """Run the steps named on the command line, in their order of dependence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=[*STEPS, "all"], metavar="STEP", help=f"{', '.join(STEPS)} or all")
    parser.add_argument("--afresh", action="store_true", help="delete testbed/.build first")
    parser.add_argument("--workers", type=int, default=2, help="processes that train, one thread each (default 2)")
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:  # a helper that run_workers started
        join(arguments.steps[0], arguments.rank, arguments.workers)
        STEPS[arguments.steps[0]]()
        return
    if arguments.afresh:
        shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(exist_ok=True)
    for name, step in STEPS.items():
        if name in arguments.steps or "all" in arguments.steps:
            start = time.time()
            if name in TRAINED:
                _chat_rows() if name == "chat" else _pretraining_rows()  # made before the workers read them
                run_workers(name, step, arguments.workers)
            else:
                step()
            print(f"{name}: done in {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
