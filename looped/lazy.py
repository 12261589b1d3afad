"""Public names of a package, and modules, that are imported when they are first used."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose `if TYPE_CHECKING:` block imports its public names.

    Type checkers read that block as code. This function reads it as text, so one line adds a name for both.

    Args:
        package: `__name__` of the package.
        file: `__file__` of the package.
    """
    places = {
        alias.asname: (node.module, alias.name)
        for node in ast.walk(ast.parse(Path(file).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname
    }

    def load(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = places[name]
        value = getattr(importlib.import_module(module), original)
        setattr(sys.modules[package], name, value)  # the next use does not call this function
        return value

    return load, lambda: sorted(places), sorted(places)


class _Module(ModuleType):
    """A module that is imported when one of its names is first used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import torch as torch
else:
    torch = _Module("torch")  # for modules that help, lists and reports import: they must not wait for torch
