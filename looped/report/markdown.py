"""report.md and results.csv."""

from collections.abc import Sequence
from dataclasses import asdict

from looped.printing import csv_text, escape_markdown
from looped.report.blocks import Block, Chart, Section, Sentences, Table
from looped.report.comparison import Problem

COLUMNS: tuple[str, ...] = (
    "task", "variant", "run", "seed", "learning_rate", "chosen", "split", "group", "num_loops", "trained_loops",
    "metric", "value", "low", "high", "n", "step", "flops_per_example", "policy", "mean_loops",
)  # fmt: skip


def results_csv(problems: Sequence[Problem]) -> str:
    """One row per run, group, number of loops or policy, and metric; `chosen` marks the learning rate of the tables."""
    rows = []
    for problem in problems:
        for variant in problem.variants:
            for rate, runs in variant.grid.items():
                same = {"task": problem.task, "variant": variant.name, "learning_rate": rate}
                same["chosen"] = "yes" if rate == variant.learning_rate else "no"
                pairs = [(run, row) for run in runs for row in (*run.rows, *run.policy_rows)]
                rows += [asdict(row) | same | {"run": run.name, "seed": run.seed} for run, row in pairs]
    return csv_text(COLUMNS, rows)


def markdown(title: str, lead: str, sections: Sequence[Section], note: str = "") -> str:
    """The report as Markdown, without blocks that need HTML. `note` is a sentence below the lead."""
    parts = [f"# {escape_markdown(title)}", escape_markdown(lead), *([note] if note else [])]
    return "\n\n".join(parts + [_section(section, 2) for section in sections]) + "\n"


def _section(section: Section, level: int) -> str:
    blocks = [text for block in section.blocks if (text := _block(block))]
    parts = [_section(part, level + 1) for part in section.parts]
    return "\n\n".join(
        [f"{'#' * level} {escape_markdown(section.title)}", escape_markdown(section.takeaway), *blocks, *parts]
    )


def _block(block: Block) -> str:
    if isinstance(block, Table):
        lines = [block.columns, ["---"] + ["---:"] * (len(block.columns) - 1), *block.rows]
        table = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        return f"{table}\n\n{escape_markdown(block.caption)}" if block.caption else table
    if isinstance(block, Chart):
        return (
            f"![{escape_markdown(block.caption)}](figures/{block.figure.name}.png)\n\n{escape_markdown(block.caption)}"
        )
    if isinstance(block, Sentences):
        return "\n".join(f"- {escape_markdown(item)}" for item in block.items)
    return ""


def _cell(text: str) -> str:
    return text if set(text) <= set("-:") else escape_markdown(text)
