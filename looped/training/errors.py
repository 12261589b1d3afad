"""Errors of training that callers catch. They are apart because catching them must not load a training library."""


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite; the weights are those before this step."""
