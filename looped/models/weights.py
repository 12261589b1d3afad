"""Weights as safetensors files, which hold no code. Each file is whole or absent."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from looped.files import replacing

WEIGHTS = "model.safetensors"


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write `folder`/model.safetensors; weights that modules share are written once."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        save_model(model, str(temporary))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from a safetensors file, or from the one in a folder that `save_weights` wrote.

    Raises:
        ValueError: for a missing or damaged file, and for weights of another architecture, whose first tensor that
            differs is named.
    """
    path = path / WEIGHTS if path.is_dir() else path
    try:
        with safe_open(str(path), framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: the file is cut short or damaged ({error})") from None
    built = model.state_dict(keep_vars=True)
    tied: dict[int, set[str]] = {}  # names of one tensor, of which the file has one
    for name, tensor in built.items():
        tied.setdefault(id(tensor), set()).add(name)
    missing = [min(names) for names in tied.values() if not names & shapes.keys()]
    wrong = sorted([*(shapes.keys() - built.keys()), *missing])
    wrong += [name for name in built if name in shapes and shapes[name] != built[name].shape]
    if wrong:
        here = shapes.get(wrong[0], "absent")
        there = tuple(built[wrong[0]].shape) if wrong[0] in built else "absent"
        raise ValueError(f"{path}: of another architecture: {wrong[0]} is {here} here and {there} in the model")
    load_model(model, str(path), strict=False)
