"""Run folders as the report reads them: found, parsed and checked, nothing computed yet."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looped.config import RunConfig
from looped.strict import from_dict

Row = dict[str, Any]

EVAL_KEYS = {
    "group", "num_loops", "metric", "value", "low", "high", "n", "split", "trained_loops", "step", "flops_per_example",
}  # fmt: skip
CONTEXT_KEYS = {"group", "method", "num_loops", "points", "metric", "value", "low", "high", "n", "split"}
TRAIN_KEYS = {"step", "loss"}
VALIDATION_KEYS = {"step", "scores"}
SUMMARY_KEYS = {"metric", "steps", "seconds", "finished", "parameters", "effective_depth", "flops_per_example", "best"}


@dataclass(frozen=True)
class Run:
    """One run folder. A run that has not come to its end has no summary, or one that says `interrupted`."""

    folder: Path
    name: str
    config: RunConfig
    metrics: tuple[Row, ...]
    rows: tuple[Row, ...]
    """The rows of eval.jsonl by loop count; empty before the evaluation."""
    exit_rows: tuple[Row, ...]
    """Those of an exit rule, if there was one."""
    in_context: tuple[Row, ...]
    """The rows of in_context.jsonl; empty but for in-context learning."""
    summary: Row | None
    best: Row | None
    """The content of best.json, so far if the run goes on."""
    thinking: Row | None
    environment: Row

    @property
    def seed(self) -> int:
        return self.config.train.seed

    @property
    def learning_rate(self) -> float:
        return self.config.optim.learning_rate

    @property
    def finished(self) -> bool:
        return self.summary is not None and self.summary["finished"] != "interrupted"

    @property
    def test_rows(self) -> list[Row]:
        return [row for row in self.rows if row["split"] == "test"]

    @property
    def validations(self) -> list[Row]:
        return [row for row in self.metrics if row["kind"] == "validation"]

    @property
    def metric(self) -> str | None:
        """The score that decides, if it is known yet."""
        known = self.summary or self.best
        return known["metric"] if known else None

    @property
    def lower_is_better(self) -> bool:
        """Whether the scores are errors."""
        return bool(self.summary and self.summary.get("lower_is_better"))

    @property
    def best_validation(self) -> float | None:
        """The best validation score."""
        return float(self.best["value"]) if self.best else None

    @property
    def last_step(self) -> int:
        return max((row["step"] for row in self.metrics), default=0)

    @property
    def trained_loops(self) -> int:
        """Number of loops that the model was trained for."""
        if self.rows:
            return self.rows[0]["trained_loops"]
        return self.config.schedule.max_loops or self.config.model.num_loops


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Every run in `folders`; a folder that is no run itself is searched one and two levels down.

    Raises:
        ValueError: one line, for a folder without runs or a malformed file (names file and line).
    """
    found: dict[Path, Run] = {}  # by resolved path, so that a run named twice counts once
    for folder in map(Path, folders):
        for path in _find(folder):
            if path.resolve() not in found:
                name = path.resolve().name if path == folder else path.relative_to(folder).as_posix()
                found[path.resolve()] = load_run(path, name)
    if not found:
        raise ValueError("no run folders given")
    return list(found.values())


def _find(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if (folder / "config.json").exists():
        return [folder]
    near = sorted(path.parent for path in folder.glob("*/config.json"))
    far = sorted(path.parent for path in folder.glob("*/*/config.json") if path.parent.parent not in near)
    if not near and not far:
        raise ValueError(f"{folder}: not a run folder (no config.json), and none one or two levels below it")
    return near + far


def load_run(folder: Path, name: str | None = None) -> Run:
    """Read one run folder; what is not there yet (eval.jsonl, summary.json, ...) is empty or None.

    Raises:
        ValueError: one line, where `folder` is no run folder or a file in it is malformed.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: not a run folder (no config.json)")
    data = read_object(folder / "config.json", {"run"})
    try:
        config = from_dict(RunConfig, data and data["run"], "run")
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from None
    metrics = _read_lines(folder / "metrics.jsonl", {"kind", "step"})
    for number, row in enumerate(metrics, 1):
        needed = TRAIN_KEYS if row["kind"] == "train" else VALIDATION_KEYS
        _check_keys(row, needed, f"{folder / 'metrics.jsonl'}:{number}")
    rows = _read_lines(folder / "eval.jsonl", EVAL_KEYS)
    for number, row in enumerate(rows, 1):
        for key in ("num_loops", "value", "low", "high", "n", "trained_loops"):
            if not isinstance(row[key], int | float):
                raise ValueError(f"{folder / 'eval.jsonl'}:{number}: {key}={row[key]!r}: expected a number")
        if "exit_rule" in row:
            _check_keys(row, {"mean_loops"}, f"{folder / 'eval.jsonl'}:{number}")
    if not rows and (folder / "eval.jsonl").exists():
        raise ValueError(f"{folder / 'eval.jsonl'}:1: the file is empty; evaluate the run again")
    summary = read_object(folder / "summary.json", SUMMARY_KEYS)
    return Run(
        folder=folder,
        name=name or folder.resolve().name,
        config=config,
        metrics=tuple(metrics),
        rows=tuple(row for row in rows if "exit_rule" not in row),
        exit_rows=tuple(row for row in rows if "exit_rule" in row),
        in_context=tuple(_read_lines(folder / "in_context.jsonl", CONTEXT_KEYS)),
        summary=summary,
        best=summary["best"] if summary else read_object(folder / "best.json", {"metric", "value"}),
        thinking=read_object(folder / "answers_by_loop.json", {"trained_loops", "examples"}),
        environment=read_object(folder / "environment.json", set()) or {},
    )


def read_object(path: Path, needed: set[str]) -> Row | None:
    """The object in a JSON file that has at least the `needed` keys; None where there is no file."""
    if not path.exists():
        return None
    return _parse(_text(path), needed, path, None)


def _read_lines(path: Path, needed: set[str]) -> list[Row]:
    if not path.exists():
        return []
    lines = _text(path).removesuffix("\n").split("\n")
    return [_parse(line, needed, path, number) for number, line in enumerate(lines, 1) if lines != [""]]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from None


def _parse(text: str, needed: set[str], path: Path, number: int | None) -> Row:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{number or error.lineno}: not JSON, is the file cut short? ({error.msg})") from None
    where = f"{path}:{number or 1}"
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, not {type(row).__name__}")
    _check_keys(row, needed, where)
    return row


def _check_keys(row: Row, needed: set[str], where: str) -> None:
    if missing := sorted(needed - row.keys()):
        raise ValueError(f"{where}: missing {', '.join(missing)}")
