"""The end of text in a tokenizer that others made."""

from pathlib import Path

from looped.files import read_object

BETWEEN_TEXTS = "<|endoftext|>"
SETTINGS = "tokenizer_config.json"


def end_of_text(tokenizer: Path) -> str:
    """The token between the texts of a pretraining: `<|endoftext|>` if there is one, or else the eos_token.

    The eos_token of a model that was trained on chats ends an answer, and is another one.

    Args:
        tokenizer: a tokenizer.json, perhaps with a tokenizer_config.json beside it.

    Raises:
        ValueError: there is no such token, or the files are damaged.
    """
    content = read_object(tokenizer)
    model, added = content.get("model"), content.get("added_tokens")
    known = set(model["vocab"]) if isinstance(model, dict) and isinstance(model.get("vocab"), dict) else set()
    known |= {token.get("content") for token in added if isinstance(token, dict)} if isinstance(added, list) else set()
    if BETWEEN_TEXTS in known:
        return BETWEEN_TEXTS
    settings = tokenizer.with_name(SETTINGS)
    end = read_object(settings).get("eos_token") if settings.is_file() else None
    end = end.get("content") if isinstance(end, dict) else end
    if not isinstance(end, str):
        raise ValueError(f"{tokenizer}: no end of text; expected {BETWEEN_TEXTS}, or an eos_token in {SETTINGS}")
    return end
