"""The files that a command of `looped theory` leaves in the folder `--out`."""

import json
from pathlib import Path
from typing import Any

from looped.files import write_atomic
from looped.lazy import torch


def write_result(folder: Path, name: str, content: dict[str, Any] | bytes) -> None:
    """Write a figure as it is, or a result as JSON, with the environment that it was computed in."""
    from looped.training.logger import environment

    if isinstance(content, bytes):
        text = content.decode()
    else:
        made = environment("float64", torch.device("cpu"))
        text = json.dumps({**content, "environment": made}, indent=1) + "\n"
    write_atomic(folder / name, text)
