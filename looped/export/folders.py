"""Folders for `transformers` without this package, and for `LoopedTransformer.load`; their upload to the hub."""

import functools
from importlib.metadata import version
from pathlib import Path
from typing import Any

from looped.card import model_card
from looped.export.flatten import flatten
from looped.extras import need
from looped.files import new_folder
from looped.models.transformer import LoopedTransformer
from looped.strict import at_least, check

CODE = "modeling_looped.py"
CLASSES = {
    "AutoConfig": "LoopedConfig",
    "AutoModel": "LoopedBaseModel",
    "AutoModelForCausalLM": "LoopedForCausalLM",
    "AutoModelForSequenceClassification": "LoopedForSequenceClassification",
}
PLACES = {"LoopedConfig": "looped.hf.configuration"}
OMITTED = (
    "looped.nn.native.block",  # C++, for training on CPUs
    "looped.hf.modeling.LoopedPreTrainedModel.save_pretrained",  # which writes a card
    *(f"looped.models.looped_model.LoopedModel.{name}"
      for name in ("save", "load_weights", "use_native", "compile_core")),
    *(f"looped.models.transformer.LoopedTransformer.{name}" for name in ("save", "load")),
)  # fmt: skip
NOTICE = '''"""A looped transformer for `transformers`: configuration, model, cache and exit rules.

`looped export` of looped {version} wrote this file. Change the package instead of this copy of a part of it.

Copyright of the authors of looped. Licensed under the Apache License, Version 2.0: you may use this file only in
compliance with the License, a copy of which is at http://www.apache.org/licenses/LICENSE-2.0. Unless required by
applicable law or agreed to in writing, it is distributed "as is", without warranties or conditions of any kind.
"""

'''


@functools.cache
def modeling_code() -> str:
    """The text of modeling_looped.py: `looped.hf` and everything of this package that it uses, in one file."""
    roots = [f"{PLACES.get(name, 'looped.hf.modeling')}.{name}" for name in CLASSES.values()]
    return NOTICE.format(version=version("looped")) + flatten(roots, omit=OMITTED)


def export_hf(
    model: LoopedTransformer,
    folder: Path | str,
    *,
    tokenizer: Any = None,
    begins_with_end: bool = False,
    num_loops: int | None = None,
    exit_rule: str | None = None,
    run: Path | None = None,
    weights_license: str | None = None,
) -> Path:
    """Write a folder for `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`.

    Args:
        model: a causal model of tokens.
        folder: a new folder.
        tokenizer: a tokenizer of a text task, or one of transformers; None writes none.
        begins_with_end: whether every text begins with the end of text, as those of the task text in training do.
        num_loops, exit_rule: for `generate`, in generation_config.json; None is the number of the model, and no rule.
        run: the run folder of the model, for the scores in its card.
        weights_license: as the hub names it, such as apache-2.0.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is not empty, transformers cannot have the model, the tokenizer does not fit, or a file
            of the run folder is malformed.
        OSError: a file cannot be written.
    """
    need("transformers", "looped export --to hf")
    from looped.hf import to_hf

    folder = Path(folder)
    check_new(folder)
    at_least(1, num_loops=num_loops)
    adapted = None if tokenizer is None else _tokenizer(tokenizer, model, begins_with_end)
    made: Any = to_hf(model)
    made.config.auto_map = {auto: f"{Path(CODE).stem}.{name}" for auto, name in CLASSES.items()}
    if num_loops is not None:
        made.generation_config.num_loops = num_loops
    if exit_rule is not None:
        made.generation_config.exit_rule = exit_rule
    if adapted is not None:
        end, pad = adapted.eos_token_id, adapted.pad_token_id
        for config in (made.config, made.generation_config):
            config.bos_token_id, config.eos_token_id = adapted.bos_token_id, end
            config.pad_token_id = end if pad is None else pad
        if unused := range(len(adapted), made.config.vocab_size):
            made.generation_config.suppress_tokens = list(unused)
    card = model_card(
        model, folder.resolve().name, auto_class="AutoModelForCausalLM", code=CODE, run=run,
        weights_license=weights_license,
    )  # fmt: skip
    with new_folder(folder) as new:
        made.save_pretrained(new)
        if adapted is not None:
            adapted.save_pretrained(new)
        (new / CODE).write_text(modeling_code())
        (new / "README.md").write_text(card)
    return folder


def export_safetensors(
    model: LoopedTransformer,
    folder: Path | str,
    *,
    tokenizer: Any = None,
    run: Path | None = None,
    weights_license: str | None = None,
) -> Path:
    """Write a folder for `LoopedTransformer.load(folder)`, with a tokenizer for `tokenizers` and a model card.

    Args as in `export_hf`.

    Raises:
        ValueError: the folder is not empty, the tokenizer has no JSON form, or a file of the run folder is malformed.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    check_new(folder)
    if tokenizer is not None and not hasattr(tokenizer, "json"):
        raise ValueError(f"tokenizer: a {type(tokenizer).__name__} has no JSON form; expected one of a text task")
    card = model_card(model, folder.resolve().name, run=run, weights_license=weights_license)
    with new_folder(folder) as new:
        model.save(new)
        if tokenizer is not None:
            (new / "tokenizer.json").write_text(tokenizer.json)
        (new / "README.md").write_text(card)
    return folder


def _tokenizer(given: Any, model: LoopedTransformer, begins_with_end: bool) -> Any:
    """A tokenizer of transformers; ValueError unless the model has its tokens."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    if hasattr(given, "save_pretrained"):
        made = given
    elif hasattr(given, "json"):
        inner, end = tokenizers.Tokenizer.from_str(given.json), given.end_token
        bos = {}
        if begins_with_end:
            first = tokenizers.processors.TemplateProcessing(single=f"{end} $A", pair=f"{end} $A {end} $B",
                                                             special_tokens=[(end, given.end)])  # fmt: skip
            before = inner.post_processor
            inner.post_processor = first if before is None else tokenizers.processors.Sequence([before, first])
            bos = {"bos_token": end}
        made = PreTrainedTokenizerFast(
            tokenizer_object=inner, eos_token=end, pad_token=end, **bos,
            model_max_length=model.config.max_seq_len, padding_side="left", clean_up_tokenization_spaces=False,
        )  # fmt: skip
    else:
        raise ValueError(f"tokenizer: a {type(given).__name__}: expected a fast tokenizer of transformers, or one of a "
                         "text task that is saved as JSON")  # fmt: skip
    size = 1 + max(made.get_vocab().values())
    known = model.config.vocab_size or 0
    check(size <= known, "tokenizer", f"{size} tokens", f"at most the {known} of the model")
    return made


def check_new(folder: Path) -> None:
    """Raise ValueError if something lies in a folder that shall be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists already; expected a new folder")


def files_of(folder: Path) -> list[tuple[str, int]]:
    """The files of a folder with their sizes in bytes: those that `push` uploads."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


def push(folder: Path, name: str, *, private: bool = True, endpoint: str | None = None) -> str:
    """Upload a folder to the hub, as one commit, with the token of `hf auth login`. Returns its address.

    Args:
        name: OWNER/NAME of the repository, which is made if it does not exist.
        private: of a new repository: whether only you can read it.
        endpoint: address of another hub.

    Raises:
        ValueError: the name is impossible, or the hub refuses.
    """
    api = need("huggingface_hub", "looped export --push").HfApi(endpoint=endpoint)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="looped export").commit_url)
    except Exception as error:  # of the hub, of its names, of the connection: several libraries have their own
        raise ValueError(f"--push {name}: {str(error).strip().partition(chr(10))[0]}") from error
