"""The works that the paper stands on, one file each: their recipes (`RECIPES`), and their table of runs (`WORK`)."""

import importlib
import pkgutil
from collections.abc import Callable

from looped.config import RunConfig
from looped.recipes.work import Work

_MODULES = {
    module.name: importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
}
WORKS: dict[str, Work] = {name: module.WORK for name, module in _MODULES.items()}
"""By the name that `looped reproduce` takes."""
RECIPES: dict[str, Callable[[], RunConfig]] = {
    name: function for module in _MODULES.values() for name, function in module.RECIPES.items()
}
