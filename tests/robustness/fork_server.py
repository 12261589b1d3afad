"""A process that imports looped once and then forks children, each of which starts in milliseconds.

It computes nothing itself, because a process that forks should have one thread. As a script this file is the server:
requests and answers are JSON, one a line.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class ForkServer:
    """The server, seen from the tests. Use it as a context."""

    def __init__(self) -> None:
        # The hash seed makes each fuzzed case the same in every run. One thread, because bits depend on their number.
        settings = {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | settings,
        )  # fmt: skip

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()  # the end of its input ends it

    def start(self, function: str, *arguments: Any, output: Path) -> int:
        """Call `function` ("module:name") in a new process; returns the id of the process.

        Args:
            arguments: plain values.
            output: file for what the process prints.
        """
        return self._ask({"function": function, "arguments": arguments, "output": str(output)})

    def wait(self, pid: int) -> int:
        """Wait until a process ends or stops; returns its status as `os.waitpid` does."""
        return self._ask({"wait": pid})

    def call(self, function: str, *arguments: Any, output: Path) -> int:
        """Call `function` in a new process and wait for its end; returns the exit code, -N after signal N."""
        return os.waitstatus_to_exitcode(self.wait(self.start(function, *arguments, output=output)))

    def _ask(self, request: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def serve() -> None:
    from looped.cli import COMMANDS

    for module in ("torch", "kill_points", "fuzz", *(f"looped.commands.{name.replace('-', '_')}" for name in COMMANDS)):
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitpid(request["wait"], os.WUNTRACED)[1]
        elif (answer := os.fork()) == 0:
            _run(request)
        print(json.dumps(answer), flush=True)


def _run(request: dict[str, Any]) -> None:
    """Be the child: call the function and exit with the number that it returns."""
    code = 70
    try:
        for descriptor, name in enumerate([os.devnull, request["output"], request["output"]]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)
        sys.stdin = open(os.devnull)  # noqa: SIM115  not what the server has read ahead
        module, _, name = request["function"].partition(":")
        code = getattr(importlib.import_module(module), name)(*request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
