"""Two devices compute what one does, with either strategy: weights in float64, 20 steps, two processes in all."""

import os
import socket
import subprocess
import sys

import device_cases
import pytest
import torch
from device_cases import CASES

from looped.training.devices import find_compiler


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What both processes computed, by case and strategy."""
    folder = tmp_path_factory.mktemp("devices")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "tests"}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, device_cases.__file__, str(folder)]
    processes = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    assert [process.wait(300) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_two_devices_compute_what_one_does(results, name, strategy):
    if CASES[name].train.compile is not False and find_compiler() is None:
        pytest.skip("no compiler here")
    (one,) = [computed[f"{name} one"] for computed in results if f"{name} one" in computed]
    two, other = (computed[f"{name} {strategy}"] for computed in results)
    assert one["values"].shape[0] == 20
    assert len({*one["values"][:, 0].tolist()}) == 20
    assert two.keys() == one.keys() == other.keys()
    for key, tensor in one.items():
        atol = 1e-6 * float(tensor.abs().max())
        torch.testing.assert_close(two[key], tensor, rtol=1e-6, atol=0 if key == "values" else atol, msg=key)
        torch.testing.assert_close(other[key], two[key], rtol=0, atol=0)
