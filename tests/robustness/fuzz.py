"""Fuzzing: readers get damaged inputs and must answer with a result or one clear line, in bounded time and memory."""

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import traceback
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutations import damaged, pick

from looped.printing import one_line

SECONDS, BYTES = 5, 500 << 20  # limits of one case: processor time, and memory over what the process had before
WAIT = 30  # seconds by the clock, for a case that waits on something


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A function that reads an input, and valid inputs."""

    valid: Sequence[bytes]
    read: Callable[[bytes], object]
    names: tuple[str, ...]
    """A refusal must contain one of these: the file, option or field."""
    cases: int
    damage: Callable[[bytes, Sequence[bytes], np.random.Generator], bytes] = damaged


class WrongBehaviourError(Exception):
    """A wrong behaviour that is not an exception of the library."""


class TooSlow(BaseException):
    """A case took longer than SECONDS of processor time, or WAIT."""


def case(reader: Reader, name: str, number: int) -> bytes:
    """The input of a case."""
    rng = np.random.default_rng([number, *name.encode()])
    content = pick(reader.valid, rng)
    return reader.damage(content, reader.valid, rng)


def fuzz(name: str, folder: str, first: int = 0, count: int | None = None) -> int:
    """Read the cases of a reader and write what was wrong to `folder`/result.json; runs in a process of its own."""
    os.chdir(folder)
    # The command line shall not catch what it did not expect, and print without colours.
    os.environ |= {"LOOPED_DEBUG": "1", "TERM": "dumb"}
    module, _, make = READERS[name].partition(":")
    reader: Reader = getattr(importlib.import_module(module), make)()
    for content in reader.valid:  # otherwise the damage might not matter
        reader.read(content)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (_private_bytes() + BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _too_slow)
    signal.signal(signal.SIGPROF, _too_slow)
    began, seen, faults = _processor_seconds(), {"read": 0, "refused": 0}, []
    with open("now", "wb", buffering=0) as now:
        for number in range(first, first + (count or reader.cases)):
            os.pwrite(now.fileno(), f"{number:9}".encode(), 0)  # in case the process dies
            content = case(reader, name, number)
            fault = _outcome(reader, content)
            if fault in seen:
                seen[fault] += 1
            else:
                faults.append({"case": number, "fault": fault, "input": _short(content)})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - used
    result = {"seconds": _processor_seconds() - began, **seen, "peak": peak, "faults": faults}
    Path("result.json").write_text(json.dumps(result))
    return 0


def _processor_seconds() -> float:
    """The time of this process and of the children that it waited for. The machine may have other work."""
    return sum(os.times()[:4])


def _private_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


def _too_slow(number: int, frame: Any) -> None:
    raise TooSlow


def _limit_time(processor: float, clock: float) -> None:
    """Raise TooSlow after so many seconds; 0 is never."""
    signal.setitimer(signal.ITIMER_PROF, processor)
    signal.setitimer(signal.ITIMER_REAL, clock)


def _outcome(reader: Reader, content: bytes) -> str:
    """read, refused, or a description of the fault."""
    _limit_time(SECONDS, WAIT)
    try:
        reader.read(content)
        return "read"
    except ValueError as error:
        message = str(error)
    except BaseException as error:
        _limit_time(0, 0)
        return described(error)
    finally:
        _limit_time(0, 0)
    if "\n" in message or len(one_line(message).splitlines()) != 1:
        return f"a message that is not one line: {message[:200]!r}"
    if not any(name in message for name in reader.names):
        return f"a message without {' or '.join(reader.names)}: {message[:200]!r}"
    return "refused"


def described(error: BaseException) -> str:
    """The exception and the last place of the library in its traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/looped/" in f.filename]
    place = f" in looped/{frames[-1].filename.rpartition('/looped/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {str(error)[:200]}"


def _short(content: bytes) -> str:
    text = repr(content)
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-100:]} ({len(content)} bytes)"


class Terminal(io.StringIO):
    """The output of a command, as if on a terminal."""

    def isatty(self) -> bool:
        return True


def command(*words: str) -> None:
    """A command line in this process. Its mistake becomes a ValueError with its message.

    Raises:
        ValueError: exit code 2.
        WrongBehaviourError: another exit code, more than one line, or characters that change a terminal.
    """
    from looped.cli import main

    out, err = Terminal(), Terminal()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    message = err.getvalue()
    if code not in (0, 2):
        raise WrongBehaviourError(f"exit code {code}: {message[:300]!r}")
    out.getvalue().encode()  # a terminal takes no lone surrogates, except from standard error, which escapes them
    if raw := {c for c in out.getvalue() + message if unicodedata.category(c) == "Cc" and c not in "\n\t\r"}:
        raise WrongBehaviourError(f"raw control characters {raw!r} on the terminal")
    if "Traceback" in message:
        raise WrongBehaviourError(f"traceback: {message[-300:]!r}")
    if code == 2:
        *_, last = message.splitlines()
        if not last.startswith("looped: error: ") or message.count("looped: error: ") != 1:
            raise WrongBehaviourError(f"expected one line: {message[:300]!r}")
        raise ValueError(last)


READERS = {
    **{name: f"fuzz_files:{make}" for name, make in {
        "plain text": "plain_text", "compressed text": "compressed_text", "sudoku": "sudoku",
        "sudoku 4x4": "small_sudoku",
        "table of classes": "class_table", "table of numbers": "number_table", "table to solve": "table_to_solve",
        "countdown": "countdown", "edit distance": "edit_distance", "lcs": "lcs", "prompts": "prompts",
        "corpus": "corpus", "json lines": "json_lines", "prepared text": "prepared_text",
    }.items()},
    **{name: f"fuzz_folders:{make}" for name, make in {
        "config.json": "config", "metrics.jsonl": "metrics", "best.json": "best", "summary.json": "summary",
        "eval.jsonl": "evaluations", "in_context.jsonl": "in_context",
        "algorithms.jsonl": "algorithms", "answers_by_loop.json": "answers",
        "environment.json": "environment", "calibration.json": "calibration", "table.json": "table",
        "data.json": "data", "task files": "task_files", "weights": "weights", "model.json": "saved_model",
        "show": "show", "evaluate": "evaluate", "solve": "solve", "report": "report", "resume": "resume",
        "exit rules": "exit_rules", "overrides": "overrides", "recipes": "recipes", "words": "words",
    }.items()},
}  # fmt: skip
