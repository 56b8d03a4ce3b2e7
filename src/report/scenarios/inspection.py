"""What inspect_run.py shows of a captured scenario and of a model, as tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from src.models.module_tree import Branch
from src.report.tables import Table
from src.report.token_text import one_line
from src.scenarios.scenario import Scenario
from src.scenarios.states import LOGITS, Conversation, References, Run
from src.scenarios.storage.status import Status

_WORDS, _TOKEN = 100, 30


def overview_table(
    name: str, scenario: Scenario, model: Mapping[str, Any], status: Status | None, n_bytes: int
) -> Table:
    """What was captured with which model, how far it has come, and how large it is."""
    shape = [
        f"{model[key]} {word}"
        for key, word in (("n_layers", "layers"), ("d_model", "wide"), ("n_heads", "heads"), ("n_kv_heads", "of keys"))
        if model.get(key) is not None
    ]
    generation = scenario.generation
    sampled = f"sampled with seed {generation.seed}" if generation.do_sample else "greedy"
    rows: list[tuple[str, str]] = [
        ("scenario", one_line(scenario.name, _WORDS)),
        ("model", one_line(str(model.get("name", "unknown")), _WORDS)),
        ("its shape", ", ".join(shape) or "unknown"),
        ("its revision", one_line(str(model.get("revision") or "unknown"), _WORDS)),
        ("its weights", f"sha256 {str(model['weights'])[:16]}" if model.get("weights") else "unknown"),
        ("computed in", str(model.get("dtype") or "unknown")),
        ("captured", f"preset {scenario.capture.preset}, positions {', '.join(scenario.capture.positions)}"),
        ("generation", f"{sampled}, at most {generation.max_new_tokens} tokens"),
        ("on the disk", f"{n_bytes / 1e6:.3g} MB"),
    ]
    if status is not None:
        done = sum(state == "done" for state in status.items.values())
        words = f"{status.state}, {done} of {len(status.items)} items are done"
        rows.append(("state", words + (f": {one_line(status.error, _WORDS)}" if status.error else "")))
    return Table(name, ["", "value"], rows)


def item_table(status: Status) -> Table:
    """The items of a capture that is not finished."""
    return Table("Items", ["item", "state"], [(one_line(item, _WORDS), state) for item, state in status.items.items()])


def conversation_table(conversations: Sequence[Conversation], n_bytes: Mapping[str, int]) -> Table:
    """A row for each conversation: what was read, what was kept."""
    columns = ["conversation", "messages", "tokens", "replies", "new tokens", "states", "MB", "layers", "sources"]
    rows = []
    for made in conversations:
        groups = [made.snapshot_rows, *(generation.rows for generation in made.generations)]
        groups += [made.token_rows] if made.token_rows is not None else []
        sources = {source: None for rows in groups for source in rows.arrays}
        layers = next((rows.layers for rows in groups if rows.layers), ())
        rows.append(
            (
                one_line(made.name, _TOKEN),
                len(made.messages) - len(made.generations),
                len(made.token_ids),
                len(made.generations),
                sum(len(generation.token_ids) for generation in made.generations),
                sum(len(rows) for rows in groups),
                n_bytes[made.name] / 1e6,
                layer_words(layers),
                ", ".join(sources) or "none",
            )
        )
    caption = "states: tokens whose states were kept (of messages, steps of generations; with preset full every token)."
    if len({row[-2:] for row in rows}) == 1:  # said once
        caption += f"\nOf each the layers {rows[0][-2]}: {rows[0][-1]}."
        columns, rows = columns[:-2], [row[:-2] for row in rows]
    return Table("Conversations", columns, rows, caption)


def layer_words(layers: Sequence[int]) -> str:
    """`0..5`, or all of them by number."""
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}..{layers[-1]}"
    return ", ".join(map(str, layers)) or "none"


def reference_table(references: References) -> Table:
    """A row for each label of the references."""
    rows = []
    for label in dict.fromkeys(text.label for text in references.texts):
        texts = [references.texts[row] for row in references.of(label)]
        words = one_line(texts[0].preview, _WORDS)
        rows.append(
            (one_line(label, _TOKEN), len(texts), sum(text.n_tokens for text in texts), texts[0].neutral, words)
        )
    return Table("Reference states", ["label", "texts", "tokens", "neutral", "the first"], rows)


def text_table(runs: Sequence[Run]) -> Table:
    """What the model said."""
    rows = [
        (one_line(run.name, _TOKEN), one_line(run.generation.text, 10 * _WORDS), run.generation.ended) for run in runs
    ]
    return Table("Generated text", ["run", "text", "ended by itself"], rows)


def step_table(run: Run, most: int) -> Table:
    """The first steps of a run."""
    steps = run.generation.steps
    columns = ["step", "kind", "seq_len", "token", "logprob", "probability", "entropy", "effective tokens"]
    rows = [
        (
            step.step,
            step.kind,
            step.seq_len,
            one_line(step.generated_token, _TOKEN),
            step.logprob,
            math.exp(step.logprob),
            step.entropy,
            step.effective_vocab,
        )
        for step in steps[:most]
    ]
    left = f" The first {most} of {len(steps)} steps (--steps)." if len(steps) > most else ""
    return Table(
        f"Steps of {one_line(run.name, _TOKEN)}",
        columns,
        rows,
        f"seq_len: tokens read. logprob and entropy in nats.{left}",
    )


def tree_table(model: str, branches: Sequence[Branch]) -> Table:
    """The modules of a model, like ones once."""
    rows = [
        (f"{'  ' * branch.depth}{branch.name}", branch.kind, branch.n_alike, branch.n_parameters, branch.share)
        for branch in branches
    ]
    caption = (
        "Parameters: of all alike together, and below them of one; weights that are tied count where they are first."
    )
    return Table(f"Modules of {model}", ["module", "class", "alike", "parameters", "share"], rows, caption)


def source_table(sources: Mapping[str, str | None], caption: str) -> Table:
    """What Strata can record of a token in a model, and why not the rest."""
    rows = [
        (source, reason is None, "" if reason is None else one_line(reason, 10 * _WORDS))
        for source, reason in sources.items()
    ]
    return Table("Sources that can be captured", ["source", "there", "why not"], [*rows, (LOGITS, True, "")], caption)
