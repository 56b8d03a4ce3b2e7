"""What the testbed's models can do, measured on held-out things: `python testbed/evaluate.py [--write]`.

Prints one table of skills with counts and Wilson intervals for the three models. `--write` puts the tables into
README.md (between its markers) and draws the figures of `circles.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, the repository's root is not on the path

from testbed import facts  # noqa: E402
from testbed.language import MARK, Draws, Page  # noqa: E402
from testbed.lexicon import BOS, EMOTION_OF, EMOTIONS, EOS, PAD, vocabulary  # noqa: E402

BARS = {"weekday": 0.95, "month": 0.95, "clock": 0.95, "sums": 0.95, "kinds": 0.95, "recall": 0.90}  # by first word
LOSS_BAR = 0.10  # held-out loss above the code length of the generator, as a share of it


@dataclass(frozen=True)
class Item:
    """A text with the words in it that the text before them determines: (index of the word, skill)."""

    text: str
    answers: tuple[tuple[int, str], ...]


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a proportion, 95 % for the default z."""
    if n == 0:
        return 0.0, 1.0
    p = right / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def accepted(said: str, right: str) -> bool:
    """Whether a word answers as the text does: the same word, or for a feeling any word of the same emotion."""
    return said == right or (right in EMOTION_OF and said in EMOTIONS[EMOTION_OF[right]])


@torch.no_grad()
def predict(model: PreTrainedModel, texts: Sequence[str], batch: int = 64) -> tuple[list[list[str]], float]:
    """The likeliest word at each place of each text, given the text's own words before it, and the mean loss.

    The loss is in nats per predicted token, EOS included. All answers of a text being right here means that greedy
    decoding writes them too, so long answers need no step-by-step generation.
    """
    words = vocabulary()
    ids = {word: i for i, word in enumerate(words)}
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: little padding
    said: list[list[str]] = [[] for _ in texts]
    total, count = 0.0, 0
    for start in range(0, len(order), batch):
        picked = order[start : start + batch]
        rows = [[ids[BOS], *(ids[w] for w in texts[i].split(" ")), ids[EOS]] for i in picked]
        width = max(map(len, rows))
        tokens = torch.tensor([row + [ids[PAD]] * (width - len(row)) for row in rows])
        logits = model(tokens).logits.float()  # padding is on the right, where causal attention never looks
        targets = tokens[:, 1:].masked_fill(tokens[:, 1:] == ids[PAD], -100)
        losses = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="sum")
        total += losses.item()
        count += int((targets >= 0).sum())
        for best, i in zip(logits.argmax(-1).tolist(), picked, strict=True):
            said[i] = [words[token] for token in best]  # entry t is said for word t of the text
    return said, total / count


def tally(items: Sequence[Item], said: Sequence[Sequence[str]], whole: bool = False) -> dict[str, tuple[int, int]]:
    """Right and all answers by skill, from the predictions that `predict` gave for the items' texts.

    With `whole`, an item counts once, as right when all its answers are.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for item, best in zip(items, said, strict=True):
        words = item.text.split(" ")
        results = [(accepted(best[index], words[index]), skill) for index, skill in item.answers]
        if whole and results:
            results = [(all(right for right, _ in results), results[0][1])]
        for right, skill in results:
            counts[skill][0] += right
            counts[skill][1] += 1
    return {skill: (right, n) for skill, (right, n) in sorted(counts.items())}


def score(model: PreTrainedModel, items: Sequence[Item], whole: bool = False) -> dict[str, tuple[int, int]]:
    """Right and all answers by skill of a model."""
    return tally(items, predict(model, [item.text for item in items])[0], whole)


def _item(sentence: str, skill: str) -> Item:
    page = Page(Draws(0))
    page.say(sentence, skill)
    return Item(" ".join(page.words), tuple(page.answers))


def cycle_items(cycle: facts.Cycle) -> Iterable[Item]:
    """Every sentence of arithmetic and succession about a cycle, each alone: all frames, starts and offsets."""
    size = len(cycle.words)
    for start in range(size):
        for sign, frames in ((1, cycle.after), (-1, cycle.before)):
            for n in range(1, size):
                for frame in frames:
                    text = frame.format(n=cycle.units(n), a=cycle.at(start), b=cycle.at(start + sign * n))
                    yield _item(text, f"{cycle.name} arithmetic")
        for frames, b in ((cycle.next_, 1), (cycle.previous, -1), (cycle.around, 1)):
            for frame in frames:
                text = frame.format(a=cycle.at(start), b=cycle.at(start + b), c=cycle.at(start - 1))
                yield _item(text, f"{cycle.name} succession")


def sum_items(n: int, seed: int = 0) -> list[Item]:
    """Sums of pairs of two-digit operands that no training text adds up."""
    pairs = random.Random(seed).sample(sorted(facts.held_out_pairs()), n)
    frame = "{a} + {b} = {c} ."
    return [
        _item(frame.format(a=facts.spaced(a), b=facts.spaced(b), c=facts.spaced(a + b, MARK)), "sums (held-out pairs)")
        for a, b in pairs
    ]


def corpus_items(name: str, limit: int | None = None) -> tuple[list[Item], list[float], list[dict]]:
    """The items of a held-out corpus file, the code length of each in nats, and its records."""
    lines = (HERE / "corpus" / f"{name}.jsonl").read_text().splitlines()[:limit]
    records = [json.loads(line) for line in lines]
    items = []
    for record in records:
        text = record.get("text") or " ".join(f"<{m['role']}> {m['content']} <end>" for m in record["messages"])
        items.append(Item(text, tuple((index, skill) for index, skill in record["labels"]["answers"])))
    return items, [record["labels"]["nats"] for record in records], records


def load(name: str) -> PreTrainedModel:
    """A model of the testbed from its committed folder, computing in float32."""
    return AutoModelForCausalLM.from_pretrained(HERE / "models" / name, dtype=torch.float32).eval()


@dataclass(frozen=True)
class Measured:
    """What one model does: (right, n) by skill, held-out loss and the generator's code length per token."""

    skills: dict[str, tuple[int, int]]
    loss: float
    optimum: float


def measure(model: PreTrainedModel, chat: bool = False, fraction: float = 1.0) -> Measured:
    """Measure the skills on a fraction of the material (1.0: all)."""
    items = [item for cycle in (facts.DAYS, facts.YEAR, facts.CLOCK) for item in cycle_items(cycle)]
    items = random.Random(1).sample(items, round(fraction * len(items)))
    skills = score(model, [*items, *sum_items(round(800 * fraction))], whole=True)
    texts, nats, _ = corpus_items("heldout", round(1500 * fraction))
    said, loss = predict(model, [item.text for item in texts])
    skills |= {f"{skill}, in documents": pair for skill, pair in tally(texts, said).items()}
    if chat:
        chats, _, _ = corpus_items("chats_heldout", round(400 * fraction))
        skills |= score(model, chats)
    return Measured(skills, loss, sum(nats) / sum(item.text.count(" ") + 2 for item in texts))


def bar_of(skill: str) -> float | None:
    """The bar that a skill has to reach, where one was set."""
    return BARS.get(skill.split(",")[0].split(" ")[0])


def table(results: dict[str, Measured]) -> str:
    """A Markdown table: a row a skill, a column a model."""
    names = list(results)
    lines = ["| skill | bar | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for skill in dict.fromkeys(skill for measured in results.values() for skill in measured.skills):
        cells = []
        for measured in results.values():
            right, n = measured.skills.get(skill, (0, 0))
            low, high = wilson(right, n)
            cells.append(f"{right / n:.1%} of {n} ({low:.1%} to {high:.1%})" if n else "")
        bar = bar_of(skill)
        lines.append(f"| {skill} | {f'{bar:.0%}' if bar else ''} | " + " | ".join(cells) + " |")
    cells = [f"{m.loss:.4f} ({m.loss / m.optimum - 1:+.1%})" for m in results.values()]
    optimum = next(iter(results.values())).optimum
    label = f"held-out loss, nats per token (code length {optimum:.4f})"
    lines.append(f"| {label} | +{LOSS_BAR:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_between(marker: str, text: str) -> None:
    """Replace what stands between two marker comments of README.md."""
    path = HERE / "README.md"
    before, rest = path.read_text().split(f"<!-- {marker} -->\n", 1)
    _, after = rest.split(f"<!-- end {marker} -->", 1)
    path.write_text(f"{before}<!-- {marker} -->\n{text}\n<!-- end {marker} -->{after}")


def main() -> None:
    """Measure the models named (all by default), print the tables, and write them and the figures on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["base", "small", "chat"], help="base, small, chat")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the material to use (default 1.0)")
    parser.add_argument("--write", action="store_true", help="update README.md and the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    from testbed import circles

    trained = [name for name in arguments.models if (HERE / "models" / name / "model.safetensors").exists()]
    if missing := sorted(set(arguments.models) - set(trained)):
        print(f"not trained yet, left out: {', '.join(missing)}")
    loaded = {name: load(name) for name in trained}
    results = {name: measure(model, name == "chat", arguments.fraction) for name, model in loaded.items()}
    print(table(results))
    if "base" not in loaded:
        return
    texts = [item.text for item in corpus_items("heldout")[0]]
    tokenizer = AutoTokenizer.from_pretrained(HERE / "models" / "base")
    clouds = circles.centroids(loaded["base"], tokenizer, texts, circles.CYCLES)
    print(circles.report(clouds))
    if arguments.write:
        write_between("skills", table(results))
        write_between("circles", circles.report(clouds))
        circles.draw(clouds, HERE / "figures")


if __name__ == "__main__":
    main()
