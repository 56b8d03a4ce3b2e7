"""Tables on the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from src.report.tables import Table, cell_text, numeric_columns


def print_table(table: Table, console: Console) -> None:
    """Print a table: numbers on the right, intervals dim. Text is never read as markup."""
    shown = TerminalTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for name, numeric in zip(table.columns, numeric_columns(table), strict=True):
        shown.add_column(Text(name), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in table.rows:
        cells = []
        for cell in map(cell_text, row):
            text = Text(cell.text)
            if cell.interval:
                text.append(f" {cell.interval}", style="dim")
            cells.append(text)
        shown.add_row(*cells)
    console.print(Text(table.title, style="bold"))
    console.print(shown)
    if table.caption:
        console.print(Text(table.caption, style="dim"))
    console.print()
