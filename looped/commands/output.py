"""Printing of tables."""

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    console = Console()
    # If the output is not a terminal, rows are not wrapped.
    (console if console.is_terminal else Console(width=200)).print(table)
