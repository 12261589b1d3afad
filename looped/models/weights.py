"""Weights as safetensors files, which hold no code. Each file is whole or absent."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model
from torch import Tensor, nn

from looped.files import replacing

WEIGHTS = "model.safetensors"
TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""The names of types in safetensors files."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write `folder`/model.safetensors; weights that modules share are written once."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        save_model(model, str(temporary))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from a safetensors file, or from the one in a folder that `save_weights` wrote.

    Floating-point weights of 16, 32 or 64 bits become the model's floating-point type. A refused file changes nothing.
    The model may have been built on `meta` and moved with `to_empty`.

    Raises:
        ValueError: for a missing or damaged file; for weights of another architecture, or of another type, such as
            integers; and for values that are not finite in the model's type. The first such tensor is named.
    """
    path = path / WEIGHTS if path.is_dir() else path
    built = model.state_dict(keep_vars=True)
    with opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _check_shapes(path, shapes, built)
        there = [name for name in built if name in shapes]
        for name in there:
            check_values(f"{path}: tensor {name}", file.get_tensor(name), built[name].dtype)
        for first, *others in tied(built, there):
            if any(not torch.equal(file.get_tensor(first), file.get_tensor(name)) for name in others):
                names = " and ".join([first, *others])
                raise ValueError(f"{path}: {names} differ; expected equal values, which the model shares")
        for name in there:  # one tensor at a time, because each process of a machine reads the file
            fill(built[name], file.get_tensor(name))
    reset_buffers(model)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, as `safe_open`. Raises ValueError if it is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: the file is cut short or damaged ({error})") from None


def write_tensors(path: Path | None, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, which may be sharded, into a safetensors file. All devices must call this; None only gathers.

    The bytes are those of `safetensors.torch.save_file`, which would need all tensors in memory, and twice on a CPU.
    Only one tensor is gathered here at a time.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor, begin = tensors[name], end
        end += tensor.numel() * tensor.itemsize
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") if path else nullcontext() as file:
        if file:
            file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            values = whole(tensors[name].detach())
            if file:
                file.write(values.cpu().contiguous().flatten().view(torch.uint8).numpy().data)


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy all values of a tensor into one that may be sharded, of which each device takes its own part."""
    if hasattr(tensor, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        sharded: Any = tensor
        values = distribute_tensor(
            values.to(tensor.device), sharded.device_mesh, sharded.placements, src_data_rank=None
        )
    tensor.copy_(values)


def whole(tensor: Tensor) -> Tensor:
    """All values of a tensor that may be sharded. All devices must call this."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def reset_buffers(model: nn.Module) -> None:
    """Compute the buffers that no checkpoint holds: sinusoids of positions, and what a modulation adds."""
    for module in model.modules():
        if callable(reset := getattr(module, "reset_buffers", None)):
            reset()


def _check_shapes(path: Path, shapes: dict[str, tuple[int, ...]], built: dict[str, Tensor]) -> None:
    """Raises ValueError unless the file has the tensors of the model; of shared ones, one name is enough."""
    missing = [names[0] for names in tied(built, built) if not any(name in shapes for name in names)]
    wrong = sorted([*(shapes.keys() - built.keys()), *missing])
    wrong += [name for name in built if name in shapes and shapes[name] != built[name].shape]
    if wrong:
        here = shapes.get(wrong[0], "absent")
        there = tuple(built[wrong[0]].shape) if wrong[0] in built else "absent"
        raise ValueError(f"{path}: of another architecture: {wrong[0]} is {here} here and {there} in the model")


def check_values(what: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raises ValueError unless the values can become `dtype` and are then finite."""
    if tensor.dtype != dtype and not (tensor.dtype in FLOATS and dtype in FLOATS):
        kind, wanted = (str(t).removeprefix("torch.") for t in (tensor.dtype, dtype))
        raise ValueError(f"{what}: is of type {kind}; expected {wanted}")
    if dtype in FLOATS and tensor.numel():
        extremes = torch.stack(torch.aminmax(tensor)).to(dtype)  # NaN if any value is; faster than isfinite().all()
        if not bool(extremes.isfinite().all()):
            raise ValueError(f"{what}: holds NaN, infinity or a value too large for {dtype}; expected finite numbers")


def tied(built: dict[str, Tensor], among: Iterable[str]) -> list[list[str]]:
    """The names in `among` of each tensor of a model, which modules may share."""
    names: dict[int, list[str]] = {}
    for name in sorted(among):
        names.setdefault(id(built[name]), []).append(name)
    return list(names.values())
