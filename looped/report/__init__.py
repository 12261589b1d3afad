"""Reports from run folders: tables, figures, answers by loop, inspection of the loop. Uses no models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from looped.files import write_atomic
from looped.locks import locked
from looped.report.blocks import Chart, Section
from looped.report.comparison import problems
from looped.report.content import build, findings
from looped.report.html import page
from looped.report.inspection import inspection
from looped.report.markdown import markdown, results_csv
from looped.report.read import read_runs
from looped.report.reproduction import load_tables, reproduction


def report(folders: Sequence[Path], out: Path) -> Path:
    """Write report.html, report.md, results.csv and figures/ into `out`; returns the path of report.html.

    A folder that is not a run itself is searched for runs one and two levels down. If a folder holds a table.json, the
    report begins with that table of the paper, otherwise with its findings.

    Raises:
        ValueError: there is no run, a file is malformed (names file and line), or another process writes into `out`.
        OSError: `out` cannot be written; each file in it is then the complete old one or the complete new one.
    """
    runs = read_runs(folders)
    with np.errstate(all="ignore"):  # the scores of a model that diverges are not finite
        found = problems(runs)
        title, lead, sections = build(found, runs)
        tables = [reproduction(table, runs) for table in load_tables(folders)]
        sections = [*(tables or findings(found)), *sections]
    with locked(out, "figures"):
        _write(out / "results.csv", results_csv(found))
        return _write_page(out, title, lead, sections, note="The pictures of the answers are in report.html.")


def report_inspection(numbers: dict[str, Any], out: Path) -> Path:
    """Write report.html, report.md and figures/ of one inspected run (see inspect.json in docs/design.md) into `out`.

    Raises:
        ValueError: the numbers are not those of an inspection; names the field.
        OSError: `out` cannot be written.
    """
    return _write_page(out, *inspection(numbers))


def _write_page(out: Path, title: str, lead: str, sections: Sequence[Section], note: str = "") -> Path:
    for chart in _charts(sections):
        _write(out / "figures" / f"{chart.figure.name}.svg", chart.figure.svg)
        _write(out / "figures" / f"{chart.figure.name}.png", chart.figure.png)
    _write(out / "report.md", markdown(title, lead, sections, note))
    _write(out / "report.html", page(title, lead, sections))
    return out / "report.html"


def _charts(sections: Sequence[Section]) -> list[Chart]:
    own = [block for section in sections for block in section.blocks if isinstance(block, Chart)]
    return own + [chart for section in sections for chart in _charts(section.parts)]


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that is not UTF-8 (in a file system, or as an escape in JSON) has characters that cannot be encoded.
    write_atomic(path, content.encode(errors="backslashreplace") if isinstance(content, str) else content)
