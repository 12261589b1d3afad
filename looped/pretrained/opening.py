"""Open a model that others trained as a `LoopedTransformer`."""

from pathlib import Path
from typing import NamedTuple

import torch

from looped.files import read_object
from looped.models.memory import check_memory
from looped.models.transformer import LoopedTransformer
from looped.pretrained.families import FAMILIES
from looped.pretrained.family import Family
from looped.pretrained.refusals import REFUSED
from looped.pretrained.tensors import SafeTensors, fill
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


def open_model(source: str | Path, *, dtype: torch.dtype = torch.float32) -> Opened:
    """Read a model of `transformers` as a looped transformer that computes the same.

    The weights are read one after another into the model, so the memory is little more than the model's.

    Args:
        source: a folder with config.json and model.safetensors (or its parts with an index).
        dtype: floating-point type of the weights, whatever the file's.

    Raises:
        ValueError: one line that says why this model cannot be opened.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{source}: no such folder")
    given = read_object(folder / CONFIG)
    try:
        family = family_of(given)
        config = family.config(given)
    except KeyError as error:
        raise ValueError(f"{folder / CONFIG}: no {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from None
    tensors = SafeTensors(folder)
    with torch.device("meta"):
        model = LoopedTransformer(config).to(dtype)
    size = sum(weight.nbytes for weight in model.parameters())
    check_memory(
        f"{source}: a model of {sum(w.numel() for w in model.parameters()):,} weights", size, torch.device("cpu")
    )
    model.to_empty(device="cpu")
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    fill(model, family, tensors)
    tokenizer = folder / TOKENIZER
    return Opened(model.eval(), family.name, tokenizer if tokenizer.is_file() else None)


def family_of(given: dict[str, object]) -> Family:
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
