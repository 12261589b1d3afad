"""What commands print."""

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    console = Console()
    # Where nobody looks on a terminal, rows stay whole lines.
    (console if console.is_terminal else Console(width=200)).print(table)
