"""The command line: `looped COMMAND`. A mistake of the user ends it with one clear line and exit code 2."""

import functools
import inspect
import json
import os
import shlex
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from looped import runs
from looped.commands import theory
from looped.commands.arguments import override_words, parse, training_run
from looped.commands.calibrate import depth
from looped.commands.generate import generate
from looped.commands.inspect import inspect_run
from looped.commands.output import print_table
from looped.commands.reproduce import reproduce
from looped.recipes import RECIPES, recipe
from looped.report import report as write_report
from looped.strict import nearest, to_dict
from looped.tasks import TASKS
from looped.training import NonFiniteError, train
from looped.training.checkpoint import saved_steps
from looped.training.run_folder import CONFIG, SUMMARY, read_config, read_json
from looped.user_code import import_code, import_words

Positional = tyro.conf.Positional


def command_train(arguments: Sequence[str]) -> None:
    """Train a recipe, with any of its settings changed: looped train demo-looped-4 --model.num-loops 8."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: looped train RECIPE [--out FOLDER] [--resume] [--FIELD VALUE ...]\n\nrecipes: {', '.join(RECIPES)}"
        )
        print("`looped train RECIPE --help` lists the fields with the recipe's values.")
        return
    name, *rest = arguments
    run, out, resume = training_run(name, rest)
    summary = train(run, out, resume=resume and (out / CONFIG).exists())
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        best = summary["best"]
        score = f", best validation {best['metric']} {best['value']:.4f} at step {best['step']}" if best else ""
        print(f"{out}: {summary['finished']} after {summary['steps']} steps{score}")
        if summary["finished"] == "interrupted":
            again = ["looped", *import_words(), "train", *arguments, *([] if resume else ["--resume"])]
            print(f"continue with: {shlex.join(again)}")


def evaluate(
    run: Positional[Path],
    loops: tuple[int, ...] = (),
    exit_rule: str | None = None,
    examples: int = 1024,
    groups: tuple[str, ...] = (),
    split: Literal["validation", "test"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> None:
    """Score a run by group (length, difficulty) and loop count, below and beyond those trained, into eval.jsonl.

    Args:
        run: the run folder.
        loops: loop counts; none is a range from 1 to twice those trained.
        exit_rule: score with it too, such as kl:0.01, change:0.1, entropy:0.1, unchanged:2 or none; none given is what
            `looped calibrate` recommends, unless loops are given.
        examples: in each group, at most.
        groups: none is all.
        split: which examples.
        checkpoint: the best by validation, or the last.
        device: where to compute; auto is the fastest kind at hand.
    """
    rows = runs.evaluate_run(
        run, loops=loops, exit_rule=exit_rule, examples=examples, groups=groups or None, split=split,
        checkpoint=checkpoint, device=device,
    )  # fmt: skip
    metric = rows[0]["metric"] if rows else ""
    primary = TASKS[read_config(run).task.name].metric
    metric = primary if any(row["metric"] == primary for row in rows) else metric
    table = Table(title=f"{run}: {metric}, {split} split", caption="95% intervals over examples")
    fixed = [row for row in rows if "exit_rule" not in row]
    columns = [(f"{n} loops", n, None) for n in sorted({row["num_loops"] for row in fixed})]
    columns += [(rule, None, rule) for rule in dict.fromkeys(row["exit_rule"] for row in rows if "exit_rule" in row)]
    for heading in ("group", "n", *(name for name, *_ in columns)):
        table.add_column(heading, justify="right")
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group and row["metric"] == metric]
        texts = []
        for _, count, rule in columns:
            cell = next(r for r in mine if r.get("exit_rule") == rule and count in (None, r["num_loops"]))
            loops_taken = f"\n{cell['mean_loops']:.2f} loops" if rule else ""
            texts.append(f"{cell['value']:.3f}\n{cell['low']:.3f}-{cell['high']:.3f}{loops_taken}")
        table.add_row(group, str(mine[0]["n"]), *texts)
    print_table(table)


def compare(
    recipes: Positional[tuple[str, ...]],
    out: Path = Path("runs/compare"),
    seeds: tuple[int, ...] = (0,),
    learning_rates: tuple[float, ...] = (),
    jobs: int = 1,
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    override: tuple[str, ...] = (),
) -> None:
    """Train and evaluate several recipes over seeds and learning rates, then report them together.

    Runs that are done are skipped, half-done ones continue. Each run is a folder and a command of its own.

    Args:
        recipes: names, see `looped recipes`.
        out: folder of the run folders and of the report.
        seeds: one run each.
        learning_rates: one run each; none is the recipe's own.
        jobs: runs at a time; the cores are divided among them.
        dry_run: only print the commands, one line a run, for any scheduler.
        override: further settings of all runs, as field=value: --override train.steps=500 task.length=8
    """
    for name in recipes:
        recipe(name)
    if not recipes or jobs < 1 or not seeds:
        raise ValueError(f"recipes={recipes}, seeds={seeds}, jobs={jobs}: expected at least one of each")
    options = override_words(override)
    work = list(runs.commands(recipes, out, seeds=seeds, learning_rates=learning_rates, options=options))
    for _, lines in work:  # what is wrong with the settings shows before anything begins
        training_run(lines[0][2], lines[0][3:])
    if dry_run:
        for _, lines in work:
            print(" && ".join(map(runs.shown, lines)))
        return
    failed = runs.run_commands(work, jobs)
    if failed:
        raise ValueError(f"{len(failed)} of {len(work)} runs failed: {'; '.join(failed)}")
    print(write_report([folder for folder, _ in work], out / "report"))


def report(folders: Positional[tuple[Path, ...]], out: Path = Path("report")) -> None:
    """Write report.html, report.md, results.csv and figures from run folders.

    Args:
        folders: run folders, or folders that hold some.
        out: folder of the report.
    """
    print(write_report(folders, out))


def solve(
    run: Positional[Path],
    file: Positional[str],
    out: Path | None = None,
    format: Literal["csv", "jsonl"] = "csv",
    num_loops: int | None = None,
    exit_rule: str | None = None,
    on_bad_row: Literal["stop", "skip"] = "stop",
) -> None:
    """Let a trained model answer your own puzzles, pairs of strings, countdown problems or tables.

    Args:
        run: the run folder.
        file: one problem a line, or a table (some rows without the last value), plain, .xz or .gz; - is standard input.
        out: file for the answers; none is standard output.
        format: of the answers.
        num_loops: the most loops; none is what `looped calibrate` recommends, or else as trained.
        exit_rule: such as kl:0.01, change:0.1, entropy:0.1, unchanged:2 or none; none given is as recommended.
        on_bad_row: stop, or skip and count.
    """
    if num_loops is not None and num_loops < 1:
        raise ValueError(f"num_loops={num_loops}: expected at least 1")
    rows, skipped = runs.solve_file(run, file, num_loops=num_loops, exit_rule=exit_rule, on_bad_row=on_bad_row)
    text = runs.as_csv(rows) if format == "csv" else "".join(json.dumps(row) + "\n" for row in rows)
    if out is None:
        print(text, end="")
    else:
        runs.write_atomic(out, text)
    if skipped:
        print(f"{skipped} bad rows skipped", file=sys.stderr)


def show(run: Positional[Path]) -> None:
    """What a run folder holds: settings, progress, checkpoints, scores.

    Args:
        run: the run folder.
    """
    config = read_config(run)
    summary = read_json(run / SUMMARY) if (run / SUMMARY).exists() else "not finished"
    print(json.dumps(to_dict(config), indent=2))
    print(f"checkpoints: {', '.join(map(str, saved_steps(run))) or 'none yet'}")
    print(f"summary: {json.dumps(summary, indent=2)}")


def recipes() -> None:
    """List the recipes: what each trains, and for how long."""
    table = Table("recipe", "task", "layers x loops", "d_model", "modulation", "steps", "note")
    for name in RECIPES:
        run = recipe(name)
        depth = f"{run.model.core_layers} x {run.model.num_loops}"
        table.add_row(
            name, run.task.name, depth, str(run.model.d_model), run.model.modulation, f"{run.train.steps:,}", run.note
        )
    print_table(table)


def tasks() -> None:
    """List the tasks, with an example of each."""
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in TASKS.items():
            task = kind(kind.example_config(Path(folder)))
            problem = task.sample("train", 1, task.rng("train", 0, 0), None)[0]
            doc = (inspect.getdoc(kind) or "").partition("\n")[0]
            print(f"{name}: {doc}\n\n{task.describe(problem)}\n")


def command_theory(arguments: Sequence[str]) -> None:
    """Run the theory: approximate a function, memorise labels, measure moduli and rates."""
    if (found := theory.chosen(arguments)) is not None:
        name, function, rest = found
        parse(_bound(function), rest, f"looped theory {name}")()


COMMANDS: dict[str, Callable[..., None]] = {
    "train": command_train,
    "evaluate": evaluate,
    "depth": depth,
    "compare": compare,
    "reproduce": reproduce,
    "report": report,
    "solve": solve,
    "generate": generate,
    "inspect": inspect_run,
    "show": show,
    "recipes": recipes,
    "tasks": tasks,
    "theory": command_theory,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code: 0, 1 (training diverged), 2 (a mistake), 130 (interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # torch's own remarks, inside its compiler and about a damaged checkpoint: nothing that a user could act on.
    for remark in ("The .grad attribute of a Tensor that is not a leaf", "Detected pickle protocol"):
        warnings.filterwarnings("ignore", remark)
    try:
        while words and words[0] == "--import":
            if len(words) < 2:
                raise ValueError("--import: expected a Python file or the name of a module")
            import_code(words[1])
            words = words[2:]
        if not words or words[0] in ("-h", "--help"):
            print("usage: looped [--import FILE_OR_MODULE] COMMAND [...]; `looped COMMAND --help` tells more\n")
            for name, function in COMMANDS.items():
                print(f"  {name:10}{(inspect.getdoc(function) or '').partition(chr(10))[0]}")
            return 0
        name, *rest = words
        if name not in COMMANDS:
            raise ValueError(f"command {name!r}: unknown{nearest(name, COMMANDS)}; `looped --help` lists them")
        if name in ("train", "theory"):
            COMMANDS[name](rest)
        else:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            parse(_bound(COMMANDS[name]), rest, f"looped {name}")()
        return 0
    except SystemExit as end:  # --help
        return int(end.code or 0)
    except NonFiniteError as error:
        print(f"looped: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the reader has left; nothing can be told it
            return 0
        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.filename}: {error.strerror}"
        print(f"looped: error: {' '.join(text.split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("looped: interrupted", file=sys.stderr)
        return 130


def _bound(function: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The function's signature, for a call that only remembers the arguments."""

    @functools.wraps(function)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    return bind


if __name__ == "__main__":
    sys.exit(main())
