"""Packages that only a part of the library needs."""

import importlib
from typing import Any

EXTRAS = {
    "transformers": "hf", "accelerate": "hf", "huggingface_hub": "hf", "peft": "hf", "gguf": "hf",
    "onnx": "export", "onnxscript": "export", "onnxruntime": "export",
    "lm_eval": "lm-eval", "datasets": "datasets", "submitit": "submitit",
    "trackio": "trackio", "wandb": "wandb", "tensorboard": "tensorboard",
}  # fmt: skip
"""The extra of pyproject.toml that installs a package."""


def need(module: str, what: str) -> Any:
    """Import a module of an optional package, such as `onnx.helper`.

    Args:
        module: its full name.
        what: the option or the command that needs it, for the message.

    Raises:
        ValueError: the package is not installed; names the extra that installs it.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        extra = f"'looped[{EXTRAS[package]}]'"
        raise ValueError(f"{what}: needs the package {package}: pip install {extra}") from None
