"""Tables on the terminal."""

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as TerminalTable
from rich.text import Text

from src.report.tables import Table, cell_text, numeric_columns

# Columns of words fold beyond this many characters; columns of numbers never do
_WIDEST_WORDS = 60
_UNBOUNDED = 100_000


def print_table(table: Table, console: Console) -> None:
    """Print a table: numbers on the right, intervals dim. Text is never read as markup.

    Where a table is wider than the console, intervals go below their numbers. One that is still wider runs past its
    edge, where the terminal wraps it: no digit is ever cut.
    """
    # left to itself, rich shrinks columns to the console's width and drops what does not fit
    unbounded = console.options.update(width=_UNBOUNDED)
    shown = _terminal_table(table, " ")
    if Measurement.get(console, unbounded, shown).maximum > console.width:
        shown = _terminal_table(table, "\n")
    shown.width = Measurement.get(console, unbounded, shown).maximum
    console.print(Text(table.title, style="bold"))
    console.print(shown, crop=False)
    if table.caption:
        console.print(Text(table.caption, style="dim"))
    console.print()


def _terminal_table(table: Table, before_interval: str) -> TerminalTable:
    shown = TerminalTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for name, numeric in zip(table.columns, numeric_columns(table), strict=True):
        shown.add_column(
            Text(name),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
            max_width=None if numeric else _WIDEST_WORDS,
        )
    for row in table.rows:
        cells = []
        for cell in map(cell_text, row):
            text = Text(cell.text)
            if cell.interval:
                text.append(f"{before_interval}{cell.interval}", style="dim")
            cells.append(text)
        shown.add_row(*cells)
    return shown
