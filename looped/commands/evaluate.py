"""`looped evaluate`."""

from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command
from looped.commands.output import Table, print_table, say
from looped.config import Device
from looped.run_folder import read_config
from looped.tasks import TASKS


def evaluate(
    run: Positional[Path],
    loops: tuple[int, ...] = (),
    exit_rule: str | None = None,
    confidence: int | None = None,
    examples: int = 1024,
    groups: tuple[str, ...] = (),
    split: Literal["validation", "test"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    device: Device = "auto",
    allow_outside: Annotated[bool, FlagCreatePairsOff] = False,
) -> None:
    """Score a run by group (length, difficulty) and loop count, below and beyond the trained number.

    Writes the scores to eval.jsonl, and some answers after each loop to answers_by_loop.json. Under torchrun, several
    devices share the work.

    Args:
        run: the run folder.
        loops: loop counts; the default is a range from 1 to twice the trained number.
        exit_rule: an exit rule to score in addition, such as kl:0.01, change:0.1, entropy:0.1, unchanged:2 or none. The
            default is the recommendation of `looped calibrate`, or no rule if loops are given.
        confidence: also score the most confident loop count of each group and of each example, among those up to so
            many more than the example needs (or than in training). The default is 20 if train.loss=task, else none.
        examples: the largest number of examples in each group.
        groups: the default is all groups.
        split: the split of the examples.
        checkpoint: the best by validation, or the last.
        device: where to compute; auto is the fastest available kind.
        allow_outside: use files outside the working folder that config.json names, if you trust the run folder.
    """
    from looped.runs import evaluate_run, is_first

    rows: list[dict[str, Any]] = []
    try:
        with nullcontext() if is_first() else redirect_stderr(StringIO()):
            evaluate_run(
                run, loops=loops, exit_rule=exit_rule, confidence=confidence, examples=examples, groups=groups,
                split=split, checkpoint=checkpoint, device=device, allow_outside=allow_outside, rows=rows,
            )  # fmt: skip
    finally:  # after an error or an interrupt: the groups that are finished
        if rows and is_first():
            primary = TASKS[read_config(run).task.name].metric
            metric = primary if any(row["metric"] == primary for row in rows) else rows[0]["metric"]
            title = f"{run}: {metric}, {split} split"
            shown = [row for row in rows if row["metric"] == metric]
            print_table(score_table(title, shown))
            for sentence in overthinking(shown, TASKS[read_config(run).task.name].lower_is_better):
                say(sentence)


def overthinking(rows: Sequence[dict[str, Any]], lower_is_better: bool) -> list[str]:
    """A sentence for each group whose score is worse at the largest loop count than at a smaller one."""
    from looped.report.comparison import Estimate
    from looped.report.sentences import overthinking_sentence

    by_group: dict[str, dict[int, Estimate]] = {}
    for row in rows:
        if not (row.get("exit_rule") or row.get("policy")):
            score = Estimate(row["value"], row["low"], row["high"], seeds=1)
            by_group.setdefault(row["group"], {})[row["num_loops"]] = score
    sentences = (overthinking_sentence(group, scores, lower_is_better) for group, scores in by_group.items())
    return list(filter(None, sentences))


def score_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Table of the eval.jsonl rows of one metric: a row for each group, a column for each loop count, exit rule and
    policy."""

    def chosen_by(row: dict[str, Any]) -> str | None:
        return row.get("exit_rule") or row.get("policy")

    table = Table(title=title, caption="95% intervals over examples")
    columns = [(f"{n} loops", n, None) for n in sorted({row["num_loops"] for row in rows if not chosen_by(row)})]
    columns += [(name, None, name) for name in dict.fromkeys(map(chosen_by, rows)) if name]
    for heading in ("group", "n", *(name for name, *_ in columns)):
        table.add_column(heading, justify="right")
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        texts = []
        for _, count, name in columns:
            cell = next(r for r in mine if chosen_by(r) == name and count in (None, r["num_loops"]))
            loops_taken = f"\n{cell['mean_loops']:.2f} loops" if name else ""
            texts.append(f"{cell['value']:.4g}\n{cell['low']:.4g}-{cell['high']:.4g}{loops_taken}")
        table.add_row(group, str(mine[0]["n"]), *texts)
    return table


main = command(evaluate)
