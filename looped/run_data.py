"""The task of a run: its data, which must not change, and the files in the run folder that answering needs."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from looped.config import HOUSEKEEPING, RunConfig, check_fits
from looped.files import new_folder, read_object, sha256
from looped.run_folder import CONFIG, InFile, read_file, write_file
from looped.strict import frozen, to_dict
from looped.tasks import TASKS
from looped.tasks.base import Task
from looped.tasks.registry import TaskConfig

FILES = "task"


@frozen
class Data(InFile):
    """The sha256 of a run's settings, of the data that it is trained on, and of the files that answering needs."""

    file: ClassVar[str] = "data.json"
    settings: str
    """The sha256 of the settings in config.json, whatever their order and line ends, without `HOUSEKEEPING`."""
    sources: dict[str, str]
    """By the name of a file or data set (`Task.sources`)."""
    files: dict[str, str]
    """By file name in the folder task/ (`Task.save`)."""


def write_data(run: RunConfig, task: Task, folder: Path) -> None:
    """Write the files that answering needs into task/, and data.json. The folder of a run has both."""
    if (folder / FILES).exists():  # of a process that was killed before the folder became a run folder
        shutil.rmtree(folder / FILES)
    with new_folder(folder / FILES) as new:
        task.save(new)
    content = {"settings": _hash(to_dict(run)), "sources": task.sources(), "files": _digests(folder / FILES)}
    write_file(folder, Data, content)


def check_data(task: Task, folder: Path) -> None:
    """Check that the task is the one that the run was trained on.

    Raises:
        ValueError: its data, config.json or a file that answering needs changed; names it.
    """
    stored = _stored(folder)
    _compare(stored.sources, task.sources(), f"changed since {folder} was trained on it; restore it")
    _compare(stored.files, _saved(task), f"of the data now is not {folder / FILES}'s, which the run was trained with")


def check_tokenizer(task: Task, folder: Path) -> None:
    """Check that a task for text has the tokenizer of another run, whose weights know only its tokens.

    Raises:
        ValueError: it has another one; or config.json or a file in task/ of the other run changed.
    """
    if task.tokenizer is None:
        return
    stored = _stored(folder)
    advice = ", ".join(f"--task.tokenizer {folder / FILES / name}" for name in stored.files) or "--task.tokenizer bytes"
    _compare(stored.files, _saved(task), f"another tokenizer than that of {folder}; expected {advice}")


def answering_task(run: RunConfig, folder: Path) -> Task:
    """The task of a run folder for answering. It needs no other folder.

    Raises:
        ValueError: config.json or a file in task/ is not that of the training, or the model is not for this task.
    """
    _stored(folder)
    return _fitting(run, TASKS[run.task.name].load(run.task, folder / FILES), folder)


def task_with_data(run: RunConfig, folder: Path, *, allow_outside: bool = False) -> Task:
    """The task of a run folder with the data that the run was trained on.

    Args:
        allow_outside: whether config.json may name files outside the working folder. A run folder from elsewhere could
            otherwise bring any file of this machine into a report.

    Raises:
        ValueError: the data is missing, changed, or outside; config.json or a file in task/ changed; or the model is
            not for this task.
    """
    outside = outside_paths(run.task)
    if outside and not allow_outside:
        field, path = outside[0]
        raise ValueError(
            f"{folder / CONFIG}: task.{field}={path!r}: outside the working folder; with --allow-outside it is used; "
            "expected only for a run folder that you trust"
        )
    if not run.task.has_data:
        raise ValueError(f"{folder}: names no data in its settings; expected a run with a text; this one can generate")
    _stored(folder)  # before the task is made, because a text task first prepares its corpus
    task = _fitting(run, TASKS[run.task.name](run.task), folder)
    check_data(task, folder)
    return task


def _fitting(run: RunConfig, task: Task, folder: Path) -> Task:
    """The task; ValueError if the run's model is not for it."""
    try:
        check_fits(run.model, task)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from None
    return task


def outside_paths(config: TaskConfig) -> list[tuple[str, str]]:
    """The fields of a task's settings with paths that are absolute or climb out of the working folder."""
    found = []
    for field in config.paths:
        value: Any = getattr(config, field)
        for path in (value,) if isinstance(value, str) else value or ():
            if path.startswith(("/", "~")) or ".." in Path(path).parts:
                found.append((field, path))
    return found


def _stored(folder: Path) -> Data:
    """The content of data.json; ValueError if config.json or a file in task/ is not that of the training."""
    stored = read_file(folder, Data)
    if stored is None:
        raise ValueError(f"{folder / Data.file}: no such file; expected the data of the run")
    if _hash(read_object(folder / CONFIG).get("run")) != stored.settings:
        raise ValueError(f"{folder / CONFIG}: changed since the training began; restore it, or train again")
    _compare(stored.files, _digests(folder / FILES), f"is not the file with which {folder} was trained", folder / FILES)
    return stored


def _hash(settings: Any) -> str:
    """The sha256 of the settings of a run. Those with which it may be continued otherwise do not count."""
    if isinstance(settings, dict) and isinstance(train := settings.get("train"), dict):
        settings = settings | {"train": {name: train[name] for name in train if name not in HOUSEKEEPING}}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _saved(task: Task) -> dict[str, str]:
    """The sha256 of each file that a task saves, by name."""
    with tempfile.TemporaryDirectory() as folder:
        task.save(Path(folder))
        return _digests(Path(folder))


def _digests(folder: Path) -> dict[str, str]:
    """The sha256 of each file in a folder, by name; none if there is no such folder."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: sha256(path) for path in paths}


def _compare(stored: dict[str, str], found: dict[str, str], problem: str, folder: Path | None = None) -> None:
    for name in sorted(stored.keys() | found.keys()):
        if stored.get(name) != found.get(name):
            raise ValueError(f"{name if folder is None else folder / name}: {problem}")
