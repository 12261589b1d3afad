"""Opening a run folder: a new one, or one to continue."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from looped.config import RunConfig
from looped.files import write_atomic
from looped.strict import from_dict, to_dict

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
BEST, SUMMARY, CHECKPOINTS = "best.json", "summary.json", "checkpoints"


def open_run(run: RunConfig, folder: Path, resume: bool) -> dict[str, Any] | None:
    """Check that `folder` can take this run; returns its summary where there is nothing left to train.

    Raises:
        ValueError: resume=False and the folder holds a run already; resume=True and it holds none or another one.
    """
    if not resume:
        for name in (CONFIG, METRICS, SUMMARY, CHECKPOINTS):
            if (folder / name).exists():
                raise ValueError(f"{folder}: already holds a run ({name}); resume it or choose another folder")
        return None
    difference = _difference(to_dict(read_config(folder)), to_dict(run))
    if difference:
        raise ValueError(f"{folder}: cannot be resumed with another configuration: {difference}")
    for leftover in (*folder.glob(".*.tmp"), *(folder / CHECKPOINTS).glob("*.tmp")):  # of a killed process
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    summary = read_json(folder / SUMMARY) if (folder / SUMMARY).exists() else None
    return summary if summary and summary.get("finished") != "interrupted" else None


def write_config(run: RunConfig, folder: Path) -> None:
    """Make `folder` a run folder, unless it is one already."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        write_json(folder / CONFIG, {"looped": version("looped"), "run": to_dict(run)})


def read_config(folder: Path) -> RunConfig:
    """The configuration in a run folder.

    Raises:
        ValueError: where `folder` is no run folder or its config.json is malformed.
    """
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: not a run folder (no {CONFIG})")
    data = read_json(folder / CONFIG)
    try:
        return from_dict(RunConfig, data.get("run"), "run")
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError names the file where it holds none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON, is the file cut short? ({error})") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected an object, not {type(data).__name__}")
    return data


def write_json(path: Path, data: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(data, indent=2) + "\n")


def _difference(stored: Any, asked: Any, path: str = "") -> str:
    """'field=asked, but the folder has stored' for the first field that differs, or ''."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        keys = stored | asked
        inner = (_difference(stored.get(key), asked.get(key), f"{path}.{key}".lstrip(".")) for key in keys)
        return next(filter(None, inner), "")
    return "" if stored == asked else f"{path}={asked!r}, but the folder has {stored!r}"
