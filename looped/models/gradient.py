"""The weights that a truncated gradient does not reach."""

from looped.config import ModelConfig


def without_gradient(config: ModelConfig, num_loops: int, num_grad_loops: int) -> list[str]:
    """The parts of a model that get no gradient if only the last `num_grad_loops` of `num_loops` loops carry one.

    Without input injection, what comes before the loop acts through the loops without gradient alone. A tied embedding
    still gets the gradient of the output.
    """
    c, before = config, num_loops - num_grad_loops
    if before < 1:
        return []
    found = {
        "embed": not c.tie_embeddings,
        "positions": c.positions == "learned" and not c.positions_every_loop,
        "embed_norm": c.embedding_norm or c.embedding_dim is not None,
        "prelude": c.prelude_layers > 0,
    }
    parts = [name for name, is_there in found.items() if is_there and c.input_injection == "none"]
    if c.cache == "first" and before >= (c.cache_loops or 1):
        parts.append("keys and values of the core, which are those of earlier loops")
    if c.modulation == "table":
        parts.append(f"rows 1 to {before} of the modulation table")
    return parts
