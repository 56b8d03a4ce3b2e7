"""A card for each run: what was said, how its state moved, what it attended to, and which references it is near."""

from src.report.figure_pool import FigurePool
from src.report.run_comparison.blocks import (
    Block,
    Card,
    Fold,
    Help,
    PagePart,
    Prose,
    Reply,
    SaidMessage,
    ShadedTable,
    Talk,
)
from src.report.run_comparison.compared import ComparedRuns, RunFindings
from src.report.run_comparison.generation import StepPool, attention_blocks, generation_blocks
from src.report.run_comparison.reference_block import reference_blocks
from src.report.run_comparison.within import layer_charts, layer_cube, summary_table
from src.report.run_comparison.words import WITHIN

# with more runs, all but the first are folded
_OPEN = 1


def run_part(found: ComparedRuns, pool: FigurePool, steps: StepPool) -> PagePart:
    """The cards of all runs."""
    blocks: list[Block] = []
    for place, one in enumerate(found.runs):
        inner = _blocks(one, pool, steps)
        body = inner if len(found.runs) <= _OPEN else [Fold(f"{one.key} in detail", inner, is_open=place < _OPEN)]
        blocks.append(Card(one.anchor, f"{one.key} · {one.name}", [_reply(one), *body], note=_about(one)))
    return PagePart("runs", "Runs", blocks)


def said(one: RunFindings) -> Talk:
    """All messages of a run, the reply included."""
    return Talk(
        [
            SaidMessage(place, message.role, message.content, message.label, message.generated)
            for place, message in enumerate(one.run.messages)
        ]
    )


def _blocks(one: RunFindings, pool: FigurePool, steps: StepPool) -> list[Block]:
    n = len(one.run.messages) - 1
    blocks: list[Block] = [Fold(f"Prompt: {n} message{'s' if n > 1 else ''}", [said(one)])]
    if one.within:
        charts = layer_charts(pool, layer_cube(one.within, list(one.within)))
        table = ShadedTable(summary_table(one.within, "Over layers"))
        blocks.append(Fold("First against last step, layer by layer", [Help(WITHIN), charts, table], is_open=True))
    blocks.append(Fold("Generation, step by step", generation_blocks(one.run, pool, steps), is_open=True))
    blocks.append(
        Fold(
            "Attention to the messages", attention_blocks(one.run, one.attended, pool), is_open=one.attended is not None
        )
    )
    return [*blocks, *(reference_blocks(one, pool) or [_no_references(one)])]


def _no_references(one: RunFindings) -> Block:
    if one.scenario.captured.references is None:
        return Prose("The scenario has no reference states.")
    return Prose("Its messages could not be set beside the references: see the problems in the overview.")


def _reply(one: RunFindings) -> Reply:
    made = one.run.generation
    ending = "ended by itself" if made.ended else "stopped at the limit"
    return Reply(made.text, f"{len(made.token_ids):,} tokens, {ending}")


def _about(one: RunFindings) -> str:
    conversation = one.run.conversation
    words = [str(one.compared.model.get("name", ""))]
    if conversation.control:
        words.append("control")
    if conversation.order is not None:
        words.append("turns shuffled")
    return " · ".join(filter(None, words))
