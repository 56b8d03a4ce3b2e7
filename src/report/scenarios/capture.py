"""What capture_scenario.py shows of a captured scenario: its runs, replies, and the size of its states."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.figures.capture import entropy_by_step, norms_by_message
from src.report.figures.theme import Record
from src.report.tables import Cell, Table, finite_or_none
from src.report.token_text import one_line
from src.scenarios.states import Conversation, References

_SHOWN = 60  # characters of a text in a table of runs
_PREVIEW = 80  # in a figure
_MOST_MAPS, _MOST_TRANSCRIPTS = 4, 4
_POSITIONS = {
    "end": "the end of each message",
    "answer": "where an answer would begin",
    "mean": "the mean of each message",
}


@dataclass(frozen=True)
class CapturedRun:
    """One generation. steps: records of `entropy_by_step`, without the name of the run."""

    name: str
    n_messages: int
    n_tokens: int
    text: str
    ended: bool
    steps: list[dict[str, Any]]

    @property
    def mean_entropy(self) -> float | None:
        """Over the steps, in nats; None where it is not finite."""
        return finite_or_none(sum(step["entropy"] for step in self.steps) / max(len(self.steps), 1))


@dataclass(frozen=True)
class CapturedConversation:
    """What the report says of one conversation; small, whatever was captured of it.

    messages: heading, role, label, text of each, replies included. norms: records of `norms_by_message`, of the
    position `position`. sources: name and number of layers of what was kept, by place (messages, tokens, steps).
    """

    name: str
    n_bytes: int
    runs: list[CapturedRun]
    messages: list[tuple[str, str, str, str]]
    position: str | None
    norms: list[dict[str, Any]]
    sources: list[str]
    notes: Mapping[str, object] = field(default_factory=dict)
    shuffled: bool = False


def summarise(conversation: Conversation, n_bytes: int) -> CapturedConversation:
    """Keep of a conversation what the report needs."""
    n = len(conversation.messages) - len(conversation.generations)
    runs = [
        CapturedRun(
            run.name,
            run.generation.after,
            run.generation.steps[0].seq_len,
            run.generation.text,
            run.generation.ended,
            [
                {
                    "step": step.step,
                    "entropy": step.entropy,
                    "token": one_line(step.generated_token, _PREVIEW),
                    "probability": math.exp(step.logprob),
                }
                for step in run.generation.steps
            ],
        )
        for run in conversation.runs()
    ]
    messages = []
    for index, message in enumerate(conversation.messages):
        after = f" after {conversation.generations[index - n].after}" if index >= n > 1 and len(runs) > 1 else ""
        words = f"reply{after}" if message.generated else f"{index} {message.role}"
        messages.append((words, message.role, message.label or "", message.content))
    position, norms = _norms(conversation, messages)
    return CapturedConversation(
        conversation.name,
        n_bytes,
        runs,
        messages,
        position,
        norms,
        _sources(conversation),
        conversation.notes,
        conversation.order is not None,
    )


def _sources(conversation: Conversation) -> list[str]:
    rows = [conversation.snapshot_rows, *(made.rows for made in conversation.generations)]
    return list(dict.fromkeys(source for part in rows for source in part.arrays))


def _norms(
    conversation: Conversation, messages: Sequence[tuple[str, str, str, str]]
) -> tuple[str | None, list[dict[str, Any]]]:
    """Norms of resid_post at the first of the captured positions."""
    rows, position = conversation.snapshot_rows, next((shot.position for shot in conversation.snapshots), None)
    if position is None or "resid_post" not in rows:
        return None, []
    norms = rows.get("resid_post").norm(dim=-1)
    return position, [
        {
            "layer": layer,
            "message": messages[shot.message][0],
            "text": one_line(messages[shot.message][3], _PREVIEW),
            "norm": float(norms[place, row]),
        }
        for row, shot in enumerate(conversation.snapshots)
        if shot.position == position
        for place, layer in enumerate(rows.layers)
    ]


def run_table(scenario: str, conversations: Iterable[CapturedConversation]) -> Table:
    """A row for each run."""
    rows: list[list[Cell]] = []
    for conversation in conversations:
        for place, run in enumerate(conversation.runs):
            rows.append(
                [
                    run.name,
                    run.n_messages,
                    run.n_tokens,
                    one_line(run.text, _SHOWN),
                    len(run.steps),
                    "end token" if run.ended else "limit",
                    run.mean_entropy,
                    round(conversation.n_bytes / 1e6, 3) if place == 0 else None,
                ]
            )
    columns = ["run", "messages", "tokens", "generated text", "new tokens", "ended by", "mean entropy", "MB"]
    caption = (
        "tokens: of the prompt. Entropy of the next token, in nats. MB: on the disk, of all runs of a conversation."
    )
    return Table(f"Runs of {scenario}", columns, rows, caption)


def reference_table(references: References | None) -> Table | None:
    """A row for each reference state."""
    if references is None or not references.texts:
        return None
    rows: list[list[Cell]] = []
    for label in dict.fromkeys(text.label for text in references.texts):
        texts = [text for text in references.texts if text.label == label]
        tokens = sorted(text.n_tokens for text in texts)
        span = str(tokens[0]) if tokens[0] == tokens[-1] else f"{tokens[0]} to {tokens[-1]}"
        neutral = "neutral" if texts[0].neutral else ""
        rows.append([label, neutral, len(texts), span, one_line(texts[0].preview, _SHOWN)])
    return Table("Reference states", ["label", "", "texts", "tokens", "first text ends with"], rows)


def transcript_tables(conversations: Iterable[CapturedConversation]) -> list[Table]:
    """What was said in the first conversations, replies included; not those with shuffled turns."""
    told = [conversation for conversation in conversations if not conversation.shuffled]
    more = f"{len(told) - _MOST_TRANSCRIPTS} more: see conversation.json in the folder of each."
    return [
        Table(
            f"Transcript of {conversation.name}",
            ["message", "role", "label", "text"],
            [list(message) for message in conversation.messages],
            more if place == _MOST_TRANSCRIPTS < len(told) else "",
        )
        for place, conversation in enumerate(told[:_MOST_TRANSCRIPTS], start=1)
    ]


def capture_figures(conversations: Sequence[CapturedConversation]) -> list[NamedChart]:
    """Entropy of every step, and the norms of every conversation's states; of shuffled ones only the former."""
    steps: list[Record] = [
        {"run": run.name, **step} for conversation in conversations for run in conversation.runs for step in run.steps
    ]
    figures = []
    if steps:
        title = "How sure the model is of each token"
        caption = "Entropy of the next-token distribution, in nats: 0 = one token has all of the probability."
        figures.append(NamedChart("entropy", title, entropy_by_step(steps, title), caption))
    mapped = [conversation for conversation in conversations if conversation.norms and not conversation.shuffled]
    for place, conversation in enumerate(mapped[:_MOST_MAPS]):
        title = f"Norm of the residual stream: {conversation.name}"
        where = _POSITIONS[conversation.position or "end"]
        chart = norms_by_message(conversation.norms, title, f"resid_post at {where}")
        figures.append(NamedChart(f"norms-{place}", title, chart, "Colours go by ratios (a logarithmic scale)."))
    return figures


def capture_text(scenario: str, model: str, conversations: Sequence[CapturedConversation], notes: Sequence[str]) -> str:
    """What was captured, in words."""
    runs = sum(len(conversation.runs) for conversation in conversations)
    size = sum(conversation.n_bytes for conversation in conversations)
    kept = dict.fromkeys(source for conversation in conversations for source in conversation.sources)
    shuffled = sum(conversation.shuffled for conversation in conversations)
    read = f"{_count(len(conversations) - shuffled, 'conversation')} of {scenario}"
    again = f", {_count(shuffled, 'time')} with shuffled turns too," if shuffled else ""
    text = (
        f"{model} has read {read}{again} and gone on {_count(runs, 'time')}. Kept on {size / 1e6:,.1f} MB: "
        f"{', '.join(kept)}."
    )
    return "\n\n".join([text, *notes])


def capture_metrics(conversations: Sequence[CapturedConversation]) -> dict[str, float]:
    """Numbers for a tracker."""
    steps = [step for conversation in conversations for run in conversation.runs for step in run.steps]
    return {
        "generated_tokens": float(len(steps)),
        "mean_entropy": sum(step["entropy"] for step in steps) / max(len(steps), 1),
        "bytes": float(sum(conversation.n_bytes for conversation in conversations)),
    }


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
