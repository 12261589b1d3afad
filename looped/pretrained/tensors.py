"""Weights in files, and how they get into a model: one after another, without a second copy of the model."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from looped.files import read_object
from looped.models.transformer import LoopedTransformer
from looped.models.weights import WEIGHTS, check_values
from looped.pretrained.family import Family, Source

INDEX = f"{WEIGHTS}.index.json"
BLOCK = 2**20
"""Numbers that are read at a time."""
PICKLES = "pytorch_model.bin", "pytorch_model.bin.index.json"


@runtime_checkable
class Tensors(Protocol):
    """The tensors of a checkpoint."""

    path: Path
    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str, rows: slice = slice(None)) -> Tensor:
        """Some rows of a tensor, or all."""
        ...


class SafeTensors:
    """The tensors of model.safetensors in a folder, or of the files that its index names.

    Raises:
        ValueError: there are no such files, or one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        if (folder / INDEX).is_file():
            places = read_object(folder / INDEX).get("weight_map")
            if not isinstance(places, dict) or not all(
                isinstance(f, str) and Path(f).name == f for f in places.values()
            ):
                raise ValueError(f"{folder / INDEX}: expected a weight_map with the names of files in this folder")
            files = sorted(set(places.values()))
        elif (folder / WEIGHTS).is_file():
            files = [WEIGHTS]
        else:
            pickled = any((folder / name).is_file() for name in PICKLES)
            found = "its weights are pickled, and unpickling a file can run any code in it" if pickled else "no weights"
            raise ValueError(f"{folder}: {found}; expected {WEIGHTS} (or {INDEX} and the files that it names)")
        self.files: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            with _opened(folder / file) as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    self.files[name] = file
                    self.shapes[name] = tuple(tensors.get_slice(name).get_shape())

    def read(self, name: str, rows: slice = slice(None)) -> Tensor:
        """The file is opened for these rows alone, because its pages stay in memory while it is open."""
        with _opened(self.path / self.files[name]) as tensors:
            return tensors.get_slice(name)[rows]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """`safe_open`, whose errors become one line that names the file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: the file is cut short or damaged ({error})") from None


@torch.no_grad()
def fill(model: LoopedTransformer, family: Family, tensors: Tensors) -> None:
    """Read all weights of a model.

    Raises:
        ValueError: tensors are missing, left over, of another shape, or not finite; names the first.
    """
    table = {name: _named_as_in(tensors, family, source) for name, source in family.weights(model.config).items()}
    weights = model.state_dict(keep_vars=True)
    shared = {name for name in table if name == "head.weight" and weights[name] is weights["embed.weight"]}
    needed = {part for name, source in table.items() if name not in shared for part in source.names}
    allowed = needed | {part for name in shared for part in table[name].names}
    left_over = [
        name
        for name in tensors.shapes
        if name not in allowed
        and not re.fullmatch(family.ignored, name)
        and not (re.fullmatch(family.zero, name) and not tensors.read(name).any())
    ]
    for names, what in ((needed - tensors.shapes.keys(), "no tensor"), (left_over, "unexpected tensor")):
        if names:
            first = min(names)
            others = f" and {len(names) - 1} others" if len(names) > 1 else ""
            raise ValueError(f"{tensors.path}: {what} {first}{others}; config.json says a model of type {family.name}")
    for name, source in table.items():
        if name not in shared:
            _fill_weight(weights[name], source, tensors)
        elif source.names[0] in tensors.shapes and not torch.equal(
            tensors.read(source.names[0]).to(weights[name].dtype), weights[name]
        ):
            raise ValueError(
                f"{tensors.path}: {source.names[0]} is not the embedding; expected so with tied embeddings"
            )


def _named_as_in(tensors: Tensors, family: Family, source: Source) -> Source:
    """The source with the names of a checkpoint, which may lack the family's prefix."""
    if any(name.startswith(family.prefix) for name in tensors.shapes):
        return source
    return source._replace(names=tuple(name.removeprefix(family.prefix) for name in source.names))


def _fill_weight(weight: Tensor, source: Source, tensors: Tensors) -> None:
    """Copy the tensors of a source into a weight, one below the other.

    Only a block of rows is in memory at a time, because an embedding can be half of a model. A tensor that is changed
    is read whole.
    """
    change = source.change or (lambda tensor: tensor)
    joined = [source.names] if source.together else [(name,) for name in source.names]
    try:
        shapes = [change(*(torch.empty(tensors.shapes[n], device="meta") for n in names)).shape for names in joined]
    except RuntimeError:  # the change is for tensors of another shape
        shapes = [torch.Size()]
    if any(not shape or shape[1:] != weight.shape[1:] for shape in shapes) or sum(s[0] for s in shapes) != len(weight):
        here = " and ".join(f"{name} is {tensors.shapes[name]}" for name in source.names)
        raise ValueError(f"{tensors.path}: {here}; config.json needs {tuple(weight.shape)} in all")
    for names, part in zip(joined, weight.split([shape[0] for shape in shapes]), strict=True):
        step = max(1, BLOCK // part[0].numel())
        blocks = [slice(None)] if source.change else [slice(i, i + step) for i in range(0, len(part), step)]
        for block in blocks:
            read = change(*(tensors.read(name, block) for name in names))
            check_values(f"{tensors.path}: tensor {' and '.join(names)}", read, weight.dtype)
            part[block].copy_(read)
