"""10,000 damaged inputs for everything that looped reads: each gives a result or one line that names its mistake.

No case may end in a traceback, take more than 5 seconds, or need more than 500 MB. Case N of a reader is the same
input in every run: `fuzz.case(reader, name, N)`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer
from fuzz import BYTES, READERS, SECONDS

ALL_SECONDS = 120
results: dict[str, dict] = {}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_give_a_result_or_one_line(name: str, server: ForkServer, tmp_path: Path):
    code = server.call("fuzz:fuzz", name, str(tmp_path), output=tmp_path / "output")
    now = tmp_path / "now"
    assert code == 0, f"died in case {now.read_text() if now.exists() else 'none'}: {(tmp_path / 'output').read_text()}"
    result = results[name] = json.loads((tmp_path / "result.json").read_text())
    kinds = {fault["fault"]: fault for fault in reversed(result["faults"])}  # the first case of each
    shown = "\n".join(f"case {f['case']}: {f['fault']}\n    {f['input']}" for f in list(kinds.values())[-10:])
    assert not kinds, f"{len(result['faults'])} faults in {name}\n{shown}"
    assert result["peak"] <= BYTES
    assert result["read"] > 0, "all inputs were refused, so the damage is too great"
    assert result["refused"] > 0, "no input was refused, so the damage is too small"


def test_10_000_cases_take_at_most_two_minutes():
    assert SECONDS <= 5
    assert set(results) == set(READERS), "this test needs those above"
    assert sum(result["read"] + result["refused"] for result in results.values()) >= 10_000
    assert sum(result["seconds"] for result in results.values()) <= ALL_SECONDS
