"""The user's code, imported to register its tasks and recipes, here and in child processes."""

import importlib
import os
import sys
from pathlib import Path

_imported: list[str] = []


def import_code(target: str) -> None:
    """Import a Python file, or a module by its name, from its folder or the working folder.

    Raises:
        ValueError: the code does not exist or fails; names the file and the line.
    """
    path = Path(target) if target.endswith(".py") else None
    if path is not None and not path.is_file():
        raise ValueError(f"--import {target}: no such file")
    if path is None and not all(part.isidentifier() for part in target.split(".")):
        raise ValueError(f"--import {target}: expected a Python file (.py) or the name of a module")
    folder, name = (os.getcwd(), target) if path is None else (str(path.resolve().parent), path.stem)
    if folder not in sys.path:  # first, as for a script, and also for worker processes
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name)
    except SyntaxError as error:
        raise ValueError(f"--import {target}: {error.filename}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}: " if trace and path else ""
        raise ValueError(f"--import {target}: {place}{type(error).__name__}: {error}") from error
    if getattr(module, "__file__", None) is None:
        raise ValueError(f"--import {target}: a folder without __init__.py; expected a Python file or a module")
    if path is not None and Path(module.__file__ or "").resolve() != path.resolve():
        raise ValueError(f"--import {target}: {name} is already the name of {module.__file__}; rename the file")
    if target not in _imported:
        _imported.append(target)


def import_words() -> list[str]:
    """The command-line words that make another `looped` process import the same code."""
    return [word for target in _imported for word in ("--import", target)]
