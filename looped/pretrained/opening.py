"""Open a model that others trained as a `LoopedTransformer`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from looped.extras import need
from looped.files import read_object
from looped.models.memory import check_memory
from looped.models.transformer import LoopedTransformer
from looped.models.weights import reset_buffers
from looped.pretrained.families import FAMILIES
from looped.pretrained.family import Family
from looped.pretrained.gguf_file import ENDING, GGUFTensors, write_tokenizer
from looped.pretrained.refusals import REFUSED
from looped.pretrained.tensors import SafeTensors, Tensors, fill
from looped.strict import check

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"


class Opened(NamedTuple):
    """A model that others trained."""

    model: LoopedTransformer
    """On the cpu, in evaluation mode. All its layers are the core, which is applied once."""
    family: str
    tokenizer: Path | None
    """A file that `TextConfig.tokenizer` can name; None if there is none."""
    note: str = ""
    """A difference from the published program that its users should know, in one sentence."""


def open_model(source: str | Path, *, dtype: torch.dtype = torch.float32) -> Opened:
    """Read a model of `transformers` as a looped transformer that computes the same.

    The weights are read one after another into the model, so the memory is little more than the model's.

    Args:
        source: a folder with config.json and model.safetensors (or its parts with an index); a .gguf file; or the name
            of a model on the Hugging Face hub, which is downloaded unless it is in the cache.
        dtype: floating-point type of the weights, whatever the file's.

    Raises:
        ValueError: one line that says why this model cannot be opened.
    """
    path = Path(source).expanduser()
    if path.suffix == ENDING and path.is_file():
        tensors = GGUFTensors(path)
        model, family = _build(tensors.config, tensors, path, dtype)
        return Opened(model, family.name, write_tokenizer(tensors), family.note)
    folder = path if path.is_dir() else hub_folder(str(source))
    model, family = _build(read_object(folder / CONFIG), SafeTensors(folder), folder / CONFIG, dtype)
    tokenizer = folder / TOKENIZER
    return Opened(model, family.name, tokenizer if tokenizer.is_file() else None, family.note)


def _build(
    given: Mapping[str, Any], tensors: Tensors, path: Path, dtype: torch.dtype
) -> tuple[LoopedTransformer, Family]:
    """The model of a configuration, which is named `path` in errors, and its family."""
    try:
        family = family_of(given)
        with torch.device("meta"):
            model = LoopedTransformer(family.config(given)).to(dtype)
    except KeyError as error:
        raise ValueError(f"{path}: no {error.args[0]}") from None
    except (TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: a setting has another type than expected ({reason})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    size = sum(weight.nbytes for weight in model.parameters())
    check_memory(f"{path}: a model of {size // dtype.itemsize:,} weights", size, torch.device("cpu"))
    model.to_empty(device="cpu")
    if model.config.tie_embeddings:
        model.head.weight = model.embed.weight
    fill(model, family, tensors)
    reset_buffers(model)
    return model.eval(), family


def hub_folder(name: str) -> Path:
    """The folder in the local cache of a model of the Hugging Face hub, which is downloaded if it is not there.

    Raises:
        ValueError: there is no such model, or no connection; or the package huggingface_hub is not installed.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"{name}: no such folder or {ENDING} file")
    hub = need("huggingface_hub", f"{name}: no such folder; a model of the hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the library has many, without a common base
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: no such folder or file, and not to be had from the hub ({reason})") from None


def family_of(given: Mapping[str, Any]) -> Family:
    """The family of a model, by the `model_type` of its config.json.

    Raises:
        ValueError: we do not read this type, or its weights are quantised.
        KeyError: there is no `model_type`.
    """
    kind = given["model_type"]
    families = {model_type: family for family in FAMILIES for model_type in family.model_types}
    if kind not in families:
        reason = REFUSED.get(str(kind), "an unknown type")
        raise ValueError(f"model_type={kind!r}: {reason}; expected one of {', '.join(families)}")
    check(not given.get("quantization_config"), "quantization_config", given.get("quantization_config"), "none")
    return families[str(kind)]
