"""A child process that ends with its parent.

The child's standard input is a pipe from the parent. The kernel closes the pipe when the parent ends, however it ends.
"""

import os
import signal
import threading

PARENT = "LOOPED_PARENT"  # environment variable of a child: the number of its parent


def end_with_parent() -> None:
    """In a child of `JobProcess` or `run_ranks`: end as after SIGTERM when the parent ends."""
    if os.environ.pop(PARENT, None) == str(os.getppid()):
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    os.read(0, 1)  # returns only when the parent's end of the pipe is closed
    os.kill(os.getpid(), signal.SIGTERM)
