"""docs/results.md from the reports under results/: `python -m benchmarks.results`.

Each folder gives its notes.md (what was run and what it means, by hand) and, from its report.md, the tables that bear
it out. Nothing is computed here.
"""

import re
from pathlib import Path

from looped.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
# In the order of the page.
FOLDERS = ("demo", "sudoku", "table2-cpu", "table3-cpu", "table4-cpu", "depth", "caches", "decoding", "bench")
KEPT = ("Scores", "Differences at equal loops", "Score by number of loops", "Score by group")
HEAD = """# Results

Every number here stands in a file under `results/` and comes from the command named beside it. This page is written
from the reports there by `make results`.
"""


def document() -> str:
    """The page, from all folders that there are."""
    return "\n".join([HEAD, *(part(ROOT / "results" / name) for name in FOLDERS if (ROOT / "results" / name).is_dir())])


def part(folder: Path) -> str:
    """One folder's notes, then what is kept of its report."""
    texts = [(folder / "notes.md").read_text().strip()]
    if (folder / "report.md").exists():
        texts += kept((folder / "report.md").read_text())
    return "\n\n".join(texts) + "\n"


def kept(report: str) -> list[str]:
    """The table of the paper with which a report begins, or else its sections named in KEPT; without the figures."""
    sections = re.split(r"^(?=##+ )", re.sub(r"^!\[.*\n\n.*\n\n?", "", report, flags=re.MULTILINE), flags=re.MULTILINE)
    table = [i for i, text in enumerate(sections) if text.startswith("## Table")]
    if table:
        end = next(i for i, text in enumerate(sections) if i > table[0] and text.startswith("## "))
        # The notes have the heading; the table's own becomes one of its parts.
        return [f"#{text}".strip() for text in sections[table[0] : end]]
    return [text.strip() for text in sections if text.startswith(tuple(f"### {name}\n" for name in KEPT))]


if __name__ == "__main__":
    write_atomic(ROOT / "docs/results.md", document())
