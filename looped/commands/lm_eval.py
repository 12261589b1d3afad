"""`looped lm-eval`."""

import dataclasses
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from looped.commands.arguments import command, different
from looped.commands.output import Table, print_table, say
from looped.config import Device
from looped.extras import need
from looped.files import read_object, write_atomic
from looped.locks import locked
from looped.printing import csv_text
from looped.run_folder import CONFIG, LM_EVAL, LMEval, LMEvalRow, read_config, write_file
from looped.strict import at_least, check


def lm_eval(
    run: Positional[Path],
    *,
    tasks: tuple[str, ...],
    loops: tuple[int, ...] = (),
    exit_rules: tuple[str, ...] = (),
    include_path: Path | None = None,
    limit: float | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 16,
    use_cache: Path | None = None,
    out: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    device: Device = "auto",
) -> None:
    """Score a language model by tasks of lm-eval, with several loop counts: looped lm-eval RUN --tasks piqa.

    Writes the scores to RUN/lm_eval/results.json and results.csv. One forward pass gives the log-likelihoods after all
    loop counts.

    Args:
        run: the folder of a run on text, or of a model in the format of transformers.
        tasks: names of tasks, groups or tags of lm-eval.
        loops: loop counts; the default is 1, half the trained number, the trained number and twice that.
        exit_rules: exit rules to score in addition, such as kl:0.01, with at most the largest of the loop counts.
        include_path: a folder with tasks of your own as YAML files; their functions in Python are run.
        limit: the largest number of documents of each task; below 1 the share of them.
        num_fewshot: examples before each question; the default is as the task says.
        batch_size: the largest number of texts in a forward pass.
        use_cache: a file that keeps the answers, by model and loops, for a later call.
        out: another folder for the results.
        checkpoint: the best by validation, or the last.
        device: where to compute; auto is the fastest available kind.
    """
    need("lm_eval", "looped lm-eval")
    if not tasks:
        raise ValueError("--tasks: expected names of tasks of lm-eval")
    different(tasks=tasks, loops=loops, exit_rules=exit_rules)
    at_least(1, batch_size=batch_size)
    at_least(0, num_fewshot=num_fewshot)
    check(limit is None or limit > 0, "limit", limit, "a positive number")
    os.environ.setdefault("TQDM_DISABLE", "1")  # tqdm reads it when it is imported
    from looped.evaluation.answer_file import AnswerFile
    from looped.evaluation.harness import equal_scores, load_tasks, quiet, scores
    from looped.evaluation.language_model import LoopedLM, Loops
    from looped.evaluation.scores import checked_loops
    from looped.models.exit_rules import parse_rule
    from looped.training.devices import find_device

    model, tokenizer, step = _opened(run, checkpoint)
    model.to(find_device(device))
    model.eval()
    trained = model.num_loops
    most = model.max_loops or 2 * trained
    counts = checked_loops(model, loops or sorted({1, max(trained // 2, 1), trained, min(2 * trained, most)}))
    rules = [dataclasses.replace(parse_rule(text), per="token") for text in exit_rules]
    for rule in rules:
        rule.check(model)
    settings = [*(Loops(count) for count in counts), *(Loops(counts[-1], rule) for rule in rules)]
    folder = out or run / LM_EVAL
    rows: list[dict[str, Any]] = []
    with locked(folder):
        try:
            with quiet():
                known = None if use_cache is None else AnswerFile(use_cache)
                lm = LoopedLM(model, tokenizer, settings, batch_size=batch_size, known=known)
                loaded = load_tasks(tasks, include_path, num_fewshot)
                for row in scores(lm, loaded, limit):
                    rows.append(row)
        finally:  # after an error or an interrupt: the loop counts that are finished
            if rows:
                facts = {"trained_loops": trained, "step": step, "limit": limit, "lm_eval": version("lm_eval")}
                write_file(folder, LMEval, {**facts, "rows": rows})
                columns = [field.name for field in dataclasses.fields(LMEvalRow)]
                write_atomic(folder / "results.csv", csv_text(columns, rows))
                print_table(_table(f"{run}: lm-eval" + (f", limit {limit:g}" if limit else ""), rows))
    if lm.shortened:
        say(f"{lm.shortened} texts were longer than the model's {lm.max_length} tokens and were shortened on the left")
    if warning := equal_scores(lm, rows):
        say(warning)
    say(folder / LMEval.file)


def _opened(run: Path, checkpoint: Literal["best", "last"]) -> tuple[Any, Any, int | None]:
    """Model, tokenizer and step of a run folder, or of a folder in the format of transformers."""
    if "run" in read_object(run / CONFIG):
        from looped.run_data import answering_task
        from looped.training.checkpoint import load_run

        task = answering_task(config := read_config(run), run)
        if task.tokenizer is None:
            raise ValueError(f"{run}: trained on {config.task.name}; expected a run on text")
        _, model, step = load_run(run, checkpoint)
        return model, task.tokenizer, step
    kind = read_object(run / CONFIG).get("model_type")
    if kind != "looped":
        raise ValueError(
            f"{run / CONFIG}: model_type={kind!r}: expected a run or a model of looped.hf; "
            f"`looped open {run} --out RUN` makes a run of other models"
        )
    if not (run / "tokenizer.json").is_file():
        raise ValueError(f"{run}: no tokenizer.json; expected the tokenizer beside the model")
    need("transformers", "looped lm-eval with a folder of transformers")
    from transformers import AutoTokenizer

    from looped.hf import LoopedForCausalLM
    from looped.tasks.continuation import as_tokenizer

    made = LoopedForCausalLM.from_pretrained(run)
    return made.looped, as_tokenizer(AutoTokenizer.from_pretrained(run), ""), None


def _table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each task and metric, a column for each loop count and exit rule."""
    table = Table(title=title, caption="± standard error over documents")
    settings = list(dict.fromkeys((row["num_loops"], row["exit_rule"]) for row in rows))
    for heading in ("task", "metric", "n", *(rule or f"{count} loops" for count, rule in settings)):
        table.add_column(heading, justify="left" if heading in ("task", "metric") else "right")
    scores: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        scores.setdefault((row["task"], row["metric"]), []).append(row)
    for (task, metric), mine in scores.items():
        table.add_row(task, metric, str(mine[0]["n"]), *map(_cell, mine), *[""] * (len(settings) - len(mine)))
    return table


def _cell(row: dict[str, Any]) -> str:
    error = "" if row["stderr"] is None else f"\n± {row['stderr']:.2g}"
    taken = f"\n{row['mean_loops']:.2f} loops" if row["exit_rule"] and row["mean_loops"] is not None else ""
    return f"{row['value']:.4g}{error}{taken}"


main = command(lm_eval)
