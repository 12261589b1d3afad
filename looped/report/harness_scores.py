"""The part of a report on the tasks of lm-eval."""

from looped.report.blocks import Section, Table
from looped.report.comparison import Problem
from looped.report.number_format import number
from looped.report.sentences import counted
from looped.run_folder import LMEvalRow


def harness_scores(problem: Problem) -> Section | None:
    """Scores by run, task and metric, with a column for each loop count and exit rule; None without such scores."""
    runs = [(run.name, run.harness.rows) for variant in problem.variants for run in variant.runs if run.harness]
    if not runs:
        return None
    settings = list(dict.fromkeys((row.exit_rule, row.num_loops) for _, rows in runs for row in rows))
    settings.sort(key=lambda setting: (setting[0] or "", setting[1]))
    table = []
    for name, rows in runs:
        by_score: dict[tuple[str, str], dict[tuple[str | None, int], str]] = {}
        for row in rows:
            by_score.setdefault((row.task, row.metric), {})[row.exit_rule, row.num_loops] = _cell(row)
        for score, cells in by_score.items():
            table.append([name, *score, *(cells.get(setting, "–") for setting in settings)])
    tasks = {row.task for _, rows in runs for row in rows}
    takeaway = f"{counted(len(runs), 'run')} on {counted(len(tasks), 'task')} of lm-eval."
    columns = [f"{rule}, at most {count} loops" if rule else f"{count} loops" for rule, count in settings]
    caption = "Scores of lm-eval, with their standard error over documents, and with an exit rule the mean loops."
    return Section("lm-eval", takeaway, [Table(["run", "task", "metric", *columns], table, caption)])


def _cell(row: LMEvalRow) -> str:
    error = "" if row.stderr is None else f"\n± {number(row.stderr)}"
    taken = "" if row.exit_rule is None or row.mean_loops is None else f"\n{row.mean_loops:.3g} loops"
    return f"{number(row.value)}{error}{taken}"
