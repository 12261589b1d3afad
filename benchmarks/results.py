"""Write docs/results.md from the reports under results/: `python -m benchmarks.results`.

Each folder contributes its handwritten notes.md (what was run, what it means) and those tables of its report.md that
support the notes. Nothing is computed here.
"""

import json
import re
from pathlib import Path

from looped.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
# In the order of the page.
FOLDERS = (
    "demo",
    "fan",
    "saunshi",
    "chomsky",
    "feng",
    "relay",
    "trm",
    "takase",
    "albert",
    "bae",
    "parity",
    "loopify",
    "deq",
    "in-context-algorithms",
    "when-timestep",
    "sudoku",
    "sudoku-laptop",
    "table2-cpu",
    "table3-cpu",
    "table4-cpu",
    "depth",
    "caches",
    "decoding",
    "bench",
    "plan",
    "devices",
    "scale",
    "sweep",
    "prepare",
)
KEPT = ("Scores", "Differences at equal loops", "Score by number of loops", "Score by group")
HEAD = """# Results

Every number here comes from the command named beside it and is stored in a file under `results/`. `make results` writes
this page from the reports there.
"""


def document() -> str:
    """The page, from all folders that exist."""
    return "\n".join([HEAD, *(part(ROOT / "results" / name) for name in FOLDERS if (ROOT / "results" / name).is_dir())])


def part(folder: Path) -> str:
    """One folder's notes, then the kept sections of its report."""
    texts = [(folder / "notes.md").read_text().strip()]
    if (folder / "report.md").exists():
        table = folder / "table.json"
        title = json.loads(table.read_text())["title"] if table.exists() else ""
        texts += kept((folder / "report.md").read_text(), title)
    return "\n\n".join(texts) + "\n"


def kept(report: str, title: str = "") -> list[str]:
    """The table of this title at the beginning of a report, or else the sections named in KEPT; without figures."""
    sections = re.split(r"^(?=##+ )", re.sub(r"^!\[.*\n\n.*\n\n?", "", report, flags=re.MULTILINE), flags=re.MULTILINE)
    table = [i for i, text in enumerate(sections) if title and text.startswith(f"## {title}")]
    if table:
        end = next(i for i, text in enumerate(sections) if i > table[0] and text.startswith("## "))
        # The notes have the main heading, so the table's heading moves one level down.
        return [f"#{text}".strip() for text in sections[table[0] : end]]
    return [text.strip() for text in sections if text.startswith(tuple(f"### {name}\n" for name in KEPT))]


if __name__ == "__main__":
    write_atomic(ROOT / "docs/results.md", document())
