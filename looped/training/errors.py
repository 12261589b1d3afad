"""Errors of training. They are in a file of their own because catching them must not load a training library."""


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite. The weights are those before this step."""
