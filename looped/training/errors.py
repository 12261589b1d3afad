"""Errors of training. They are in a file of their own because catching them must not load a training library."""

import signal

MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""Parts of the errors that torch raises when memory is short, on a CPU and on a GPU."""


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite. The weights are those before this step."""


class TrainingError(RuntimeError):
    """The training cannot go on: a batch cannot be prepared, or there is too little memory."""


class UpdateError(TrainingError):
    """The optimiser failed. Some weights are those after the step and others those before it."""


class Interrupted(Exception):  # noqa: N818  it is no error
    """A signal ended the training, which has written a checkpoint."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal


class OtherError(RuntimeError):
    """Another process of this training failed first, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__("another process of this training has failed")
        self.code = code
        """The exit code of that process."""


def exit_code(error: BaseException) -> int:
    """The exit code after an error: 1 (training diverged), 2 (a mistake), 3 (a fault), or 128 + the signal."""
    if isinstance(error, NonFiniteError):
        return 1
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    if isinstance(error, SystemExit):  # of a task; 0 would be no failure
        return 2 if isinstance(error.code, str) else error.code or 3
    return 2 if isinstance(error, ValueError | OSError) else 3


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or the one that caused it, says that memory is short."""
    if isinstance(error, MemoryError) or any(part in str(error) for part in MEMORY):
        return True
    return error is not None and lacks_memory(error.__cause__)
