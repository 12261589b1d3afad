"""The content of the report: sections of sentences, tables, figures and visualisations, computed from the problems."""

from collections.abc import Sequence

from looped.report import figures
from looped.report.algorithms import nearest_algorithms
from looped.report.answers_by_loop import LEGENDS, visualise_run
from looped.report.blocks import Chart, Html, Section, Sentences, Table
from looped.report.chosen_loops import chosen_loops
from looped.report.comparison import Estimate, Problem, Variant, exit_score, run_score, validation_mean
from looped.report.figures import spaced
from looped.report.harness_scores import harness_scores
from looped.report.number_format import amount, duration, interval, number, signed
from looped.report.read import Run
from looped.report.sentences import (
    climb_sentence,
    counted,
    curves_sentence,
    difference_sentence,
    joined,
    overthinking_sentence,
    scores_sentence,
)
from looped.tasks import TASKS


def build(problems: Sequence[Problem], runs: Sequence[Run]) -> tuple[str, str, list[Section]]:
    """Title, lead sentence and sections of the report."""
    titles = list(dict.fromkeys(TASKS[problem.task].title for problem in problems))
    names = list(dict.fromkeys(run.config.recipe for run in runs))
    title = (
        f"{', '.join(titles)}: {', '.join(names)}" if len(names) <= 4 else f"{', '.join(titles)}: {len(names)} recipes"
    )
    done = sum(run.finished for run in runs)
    lead = f"{counted(len(runs), 'run')} of {counted(len(names), 'recipe')}, {done} of them finished."
    sections, used = [], []
    for problem in problems:
        used.append(problem.task)
        again = used.count(problem.task)
        sections.append(_problem(problem, problem.task if again == 1 else f"{problem.task}_{again}"))
    return title, lead, [*sections, _provenance(runs)]


def findings(problems: Sequence[Problem]) -> list[Section]:
    """The main sentences about each problem; no section if no run has a score yet."""
    parts = []
    for problem in problems:
        if any(problem.headline(variant) for variant in problem.variants):
            pairs = [d for d in problem.differences if d.first.trained_loops > 1]
            differences = [difference_sentence(d, problem.lower_is_better) for d in pairs] if len(pairs) <= 2 else []
            more = Sentences([text for text in (climb_sentence(problem), *differences) if text])
            parts.append(Section(TASKS[problem.task].title, scores_sentence(problem), [more]))
    return [Section("Findings", "Each sentence is computed from the runs below.", (), parts)] if parts else []


def _problem(problem: Problem, slug: str) -> Section:
    parts = [_unfinished(problem)] if problem.unfinished or problem.unevaluated else []
    if problem.variants:
        curves = [
            Chart(figure, caption)
            for figure, caption in (
                (figures.validation_curves(problem, f"{slug}_validation"), "Validation score during training."),
                (figures.loss_curves(problem, f"{slug}_loss"), "Training loss."),
            )
            if figure
        ]
        several = any(len(variant.runs) > 1 for variant in problem.variants)
        lines = (
            ["Lines: mean over seeds at the chosen learning rate; bands: lowest to highest seed."] if several else []
        )
        parts = [
            _scores(problem), _differences(problem), _by_loops(problem, slug), chosen_loops(problem, slug),
            _leaving(problem),
            Section("Learning curves", curves_sentence(problem), [*curves, Sentences(lines)]) if curves else None,
            _by_group(problem, slug), _by_context(problem, slug), nearest_algorithms(problem, slug),
            harness_scores(problem), _answers_by_loop(problem),
            _grid(problem) if _has_grid(problem) else None, *parts,
        ]  # fmt: skip
    settings = f"Settings other than the defaults: {problem.settings}." if problem.settings else "Default settings."
    return Section(TASKS[problem.task].title, settings, (), [part for part in parts if part])


def _scores(problem: Problem) -> Section:
    others = [metric for metric in problem.metrics if metric != problem.metric]
    rows = []
    for variant in problem.variants:
        rows.append([
            variant.name,
            _score_cell(problem.headline(variant)),
            str(variant.trained_loops),
            f"{variant.mean_of('effective_depth'):g}",
            amount(variant.mean_of("parameters")),
            amount(variant.mean_of("flops_per_example")),
            duration(variant.mean_of("seconds")),
            *(_score_cell(problem.estimate(variant, metric, variant.trained_loops)) for metric in others),
        ])  # fmt: skip
    columns = [
        "variant", f"test {spaced(problem.metric)}", "loops", "effective depth", "parameters", "FLOPs per example",
        "training time", *(f"test {spaced(metric)}" for metric in others),
    ]  # fmt: skip
    groups = f" Scores are means over all test examples of: {', '.join(map(str, problem.groups))}." * (
        len(problem.all_groups) > 1
    )
    rate = ", at the learning rate with the best mean validation score" if _has_grid(problem) else ""
    caption = f"Scores at the number of loops in training{rate}. {interval_text(problem)}{groups}"
    noted = dict.fromkeys(note for v in problem.variants if (note := v.runs[0].config.note))
    notes = [f"{joined([v.name for v in problem.variants if v.runs[0].config.note == n])}: {n}" for n in noted]
    stale = [_stale(run) for variant in problem.variants for run in variant.runs if run.stale_steps]
    blocks = [Table(columns, rows, caption), Sentences(notes), Sentences(stale)]
    return Section("Scores", scores_sentence(problem), blocks)


def _stale(run: Run) -> str:
    steps = " and ".join(f"{step:,}" for step in run.stale_steps)
    best = f"the best checkpoint is of step {run.best.step:,}" if run.best else "the training ended later"
    return f"{run.name}: scores are of step {steps}, but {best}. `looped evaluate` computes them again."


def interval_text(problem: Problem) -> str:
    """A sentence about the 95% intervals: over seeds, or over test examples."""
    seeds = {estimate.seeds for variant in problem.variants if (estimate := problem.headline(variant))}
    over_seeds = "95% intervals are Student's t over seeds."
    over_examples = "95% intervals are over the test examples of one seed; they say nothing about other seeds."
    if seeds == {1}:
        return over_examples
    return over_seeds if 1 not in seeds else f"{over_seeds} With one seed, they are over its test examples."


def _differences(problem: Problem) -> Section | None:
    if len(problem.variants) < 2:
        return None
    found = problem.differences
    if not found:
        return Section("Differences at equal loops", "No two variants were trained for an equal number of loops.")
    claimed = sum(difference.claimed for difference in found)
    takeaway = f"A difference can be claimed in {claimed or 'none'} of {counted(len(found), 'pair')} with equal loops."
    sentences = [difference_sentence(difference, problem.lower_is_better) for difference in found]
    if len(found) == 1:
        takeaway, sentences = sentences[0], []
    rows = [[f"{d.second.name} − {d.first.name}", str(d.first.trained_loops), signed(d), str(d.seeds)] for d in found]
    caption = (
        "Difference of the test scores with its 95% interval, paired by seed if two or more seeds are shared. It is "
        "claimed only if the intervals of both scores do not overlap and that of the difference excludes zero."
    )
    table = Table(["difference", "loops", f"test {spaced(problem.metric)}", "seeds"], rows, caption)
    return Section("Differences at equal loops", takeaway, [Sentences(sentences), table])


def _by_loops(problem: Problem, slug: str) -> Section | None:
    figure = figures.score_by_loops(problem, f"{slug}_score_by_loops")
    if figure is None:
        return None
    takeaway = climb_sentence(problem) or "No variant was evaluated below the number of loops in its training."
    more = Sentences([text for variant in problem.variants if (text := _overthinking(problem, variant))])
    caption = f"Test {spaced(problem.metric)} by the number of loops. Bands: 95% intervals, as above."
    return Section("Score by number of loops", takeaway, [*([more] if more.items else []), Chart(figure, caption)])


def _overthinking(problem: Problem, variant: Variant) -> str:
    scores = {n: problem.estimate(variant, problem.metric, n) for n in problem.loops(variant)}
    known = {n: score for n, score in scores.items() if score}
    return overthinking_sentence(variant.name, known, problem.lower_is_better) if known else ""


def _leaving(problem: Problem) -> Section | None:
    runs = [(variant, run) for variant in problem.variants for run in variant.runs]
    left = [(v, run, found) for v, run in runs if (found := exit_score(run, problem.metric, problem.groups))]
    if not left:
        return None
    rows = [
        [v.name, str(run.seed), rule, f"{loops:.2f}", interval(score), str(v.trained_loops), _full(problem, v, run)]
        for v, run, (rule, loops, score) in left
    ]
    variant, _, (rule, loops, score) = left[0]
    takeaway = f"{variant.name} exits after {loops:.2f} loops on average by the rule {rule}, with {interval(score)}."
    columns = ["variant", "seed", "exit rule", "mean loops", "score", "loops in training", "score at these loops"]
    caption = f"Test {spaced(problem.metric)} of each run evaluated with an exit rule. 95% intervals are over examples."
    return Section("Early exit", takeaway, [Table(columns, rows, caption)])


def _full(problem: Problem, variant: Variant, run: Run) -> str:
    score = run_score(run, problem.metric, variant.trained_loops, problem.groups)
    return "–" if score is None else interval(Estimate(*score, seeds=1))


def _by_group(problem: Problem, slug: str) -> Section | None:
    figure = figures.score_by_group(problem, f"{slug}_score_by_group")
    scored = [v for v in problem.variants if problem.headline(v)]
    if figure is None or not scored:
        return None
    best = max(scored, key=lambda v: problem.rank(e.value if (e := problem.headline(v)) else None))
    estimates = {g: problem.estimate(best, problem.metric, best.trained_loops, groups=[g]) for g in problem.all_groups}
    by_group = {group: estimate.value for group, estimate in estimates.items() if estimate}
    hard, *_, easy = sorted(by_group, key=lambda group: problem.rank(by_group[group]))
    takeaway = f"{best.name} scores {number(by_group[easy])} on {easy}, its easiest group, "
    takeaway += f"and {number(by_group[hard])} on {hard}, its hardest."
    if by_group[easy] == by_group[hard]:
        takeaway = f"{best.name} scores {number(by_group[easy])} on every group."
    caption = f"Test {spaced(problem.metric)} by group at the loops in training, with 95% intervals as above."
    return Section("Score by group", takeaway, [Chart(figure, caption)])


def _by_context(problem: Problem, slug: str) -> Section | None:
    figure = figures.score_by_context(problem, f"{slug}_score_by_context")
    if figure is None:
        return None
    curves = problem.context_curves
    last = max(points[-1][0] for points in curves.values())
    ends = {method: points[-1][1] for method, points in curves.items() if points[-1][0] == last}
    mine = {variant.name for variant in problem.variants} & ends.keys()
    model = max(mine, key=lambda name: problem.rank(ends[name]))
    base = max(ends.keys() - mine, key=lambda name: problem.rank(ends[name]))
    takeaway = f"With {last} points in context {model} scores {number(ends[model])}; "
    takeaway += f"the best baseline, {base}, {number(ends[base])}."
    caption = (
        f"Test {spaced(problem.metric)} by number of points in context, at the loops in training, for the first seed. "
        "Bands: 95% intervals over prompts. Baselines use the same prompts; slow baselines use only the first of them. "
        "Errors below 1/10,000 of the largest are not shown."
    )
    return Section("Score by points in context", takeaway, [Chart(figure, caption)])


def _answers_by_loop(problem: Problem) -> Section | None:
    runs = [run for variant in problem.variants for run in variant.runs if run.answers]
    if not runs:
        return None
    runs = [run for run in runs if run.trained_loops > 1] or runs
    run = max(runs, key=lambda r: problem.rank(r.best_validation))
    visualisations = visualise_run(run)
    if visualisations is None:
        return None
    name = next(v.name for v in problem.variants if run in v.runs)
    shown = counted(visualisations.examples, "example")
    loops = counted(run.trained_loops, "loop")
    takeaway = f"{name} answers {visualisations.solved} of {shown} correctly with the {loops} of its training."
    kind = "looped run" if run.trained_loops > 1 else "run"
    note = f"Shown: the {kind} with the best validation score at the chosen learning rate, "
    note += f"{run.name} (seed {run.seed}, learning rate {run.learning_rate:g})."
    legend = "".join(LEGENDS[kind] for kind in visualisations.kinds)
    return Section("Answers, loop by loop", takeaway, [Html(legend + visualisations.html), Sentences([note])])


def _grid(problem: Problem) -> Section:
    rows = []
    for variant in problem.variants:
        for rate, runs in variant.grid.items():
            validation = validation_mean(runs)
            rows.append([
                variant.name, f"{rate:g}", "✓" if rate == variant.learning_rate else "", str(len(runs)),
                "–" if validation is None else number(validation),
                _score_cell(problem.estimate(variant, problem.metric, variant.trained_loops, rate)),
            ])  # fmt: skip
    rates = sorted({len(variant.grid) for variant in problem.variants})
    tried = f"{rates[0]}" if len(rates) == 1 else f"{rates[0]} to {rates[-1]}"
    takeaway = f"Each variant chose among {tried} learning rates by validation scores, without test scores."
    columns = ["variant", "learning rate", "chosen", "seeds", "best validation", f"test {spaced(problem.metric)}"]
    caption = "Validation: mean over seeds of each run's best score. Intervals as in the first table."
    return Section("All learning rates", takeaway, [Table(columns, rows, caption)])


def _has_grid(problem: Problem) -> bool:
    return any(len(variant.grid) > 1 for variant in problem.variants)


def _unfinished(problem: Problem) -> Section:
    rows = []
    for run in (*problem.unfinished, *problem.unevaluated):
        best = run.best_validation
        state = "finished, not evaluated" if run.finished else f"step {run.last_step:,} of {run.config.train.steps:,}"
        score = "–" if best is None else number(best)
        rows.append([run.name, problem.names[id(run)], str(run.seed), f"{run.learning_rate:g}", state, score])
    takeaway = f"{counted(len(problem.unfinished), 'run')} unfinished, {len(problem.unevaluated)} not evaluated; "
    columns = ["run", "variant", "seed", "learning rate", "state", "best validation so far"]
    return Section("Not complete", takeaway + "they do not count in the test scores above.", [Table(columns, rows)])


def _provenance(runs: Sequence[Run]) -> Section:
    labels = {"machine": "Machine", "device": "Device", "precision": "Precision", "threads": "Threads",
            "python": "Python", "torch": "PyTorch", "looped": "looped"}  # fmt: skip
    settings: dict[str, int] = {}
    rows = []
    for run in runs:
        made = run.environment
        text = ", ".join(f"{label} {getattr(made, key)}" for key, label in labels.items()) if made else "not recorded"
        settings[text] = settings.get(text, 0) + 1
        ended = run.summary.finished if run.summary else "interrupted"
        state = {"steps": "finished", "target": "target reached"}.get(ended, "unfinished")
        steps = run.summary.steps if run.summary else run.last_step
        command, date = (made.command, made.date) if made else ("command not recorded", "not recorded")
        rate = f"{run.learning_rate:g}"
        rows.append(
            [f"{run.name}\n{command}", run.config.recipe, str(run.seed), rate, f"{state}\nstep {steps:,}", date]
        )
    takeaway = (
        f"{counted(len(runs), 'run')} in {counted(len(settings), 'setting')}. Each command below repeats its run."
    )
    lines = [f"{counted(count, 'run')}: {text}." for text, count in settings.items()]
    table = Table(["run", "recipe", "seed", "learning rate", "state", "date"], rows)
    return Section("How these were run", takeaway, [Sentences(lines), table])


def _score_cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    seeds = counted(estimate.seeds, "seed")
    return f"{interval(estimate).replace(' ', chr(10), 1)}, {seeds}"
