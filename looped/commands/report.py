"""`looped report`."""

from pathlib import Path

from tyro.conf import Positional

from looped.commands.arguments import command
from looped.commands.output import say


def report(folders: Positional[tuple[Path, ...]], out: Path = Path("report")) -> None:
    """Write report.html, report.md, results.csv and figures from run folders.

    Args:
        folders: run folders, or folders that contain run folders.
        out: folder of the report.
    """
    from looped.report import report as write_report

    say(write_report(folders, out))


main = command(report)
