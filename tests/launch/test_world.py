"""The place of a process, from the variables of torchrun and of Slurm."""

import os

import pytest

from looped.launch.world import World, find_world

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
BATCH = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODELIST": "n1"}
SRUN = BATCH | {
    "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "node[05-09,12],login1", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
}  # fmt: skip


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment, which `find_world` changes."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    monkeypatch.setattr(os, "environ", found)
    return found


def test_alone(variables):
    assert find_world() is None
    variables |= {"RANK": "0", "WORLD_SIZE": "1"}
    assert find_world() is None


def test_torchrun(variables):
    variables |= TORCHRUN | {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert find_world() == World(rank=3, size=4, local_rank=1, local_size=2)
    assert find_world().nodes == 2  # type: ignore[union-attr]


def test_by_hand_all_processes_are_on_one_machine(variables):
    variables |= TORCHRUN
    assert find_world() == World(rank=3, size=4, local_rank=3, local_size=4)
    assert (variables["LOCAL_RANK"], variables["LOCAL_WORLD_SIZE"]) == ("3", "4")  # Fabric reads them


def test_a_batch_script_of_slurm_trains_alone(variables):
    variables |= BATCH
    assert find_world() is None


def test_srun(variables):
    variables |= SRUN
    assert find_world() == World(rank=3, size=4, local_rank=1, local_size=2)
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == ("node05", "15172")


def test_torchrun_inside_srun(variables):
    variables |= SRUN | TORCHRUN | {"RANK": "0", "WORLD_SIZE": "2"}
    assert find_world() == World(rank=0, size=2, local_rank=0, local_size=2)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a1,a2", "a1"),
        ("n[3,5]", "n3"),
        ("n[3-5]", "n3"),
        ("n[3]-ib,m", "n3-ib"),
        ("rack-[01-02]", "rack-01"),
    ],
)
def test_rank_0_is_on_the_first_node(variables, nodes, first):
    variables |= SRUN | {"SLURM_STEP_NODELIST": nodes}
    find_world()
    assert variables["MASTER_ADDR"] == first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RANK": ""}, r"RANK='', but WORLD_SIZE=4; expected a whole number"),
        ({"RANK": "4"}, "RANK=4: expected a number from 0 to 3, because WORLD_SIZE=4"),
        ({"RANK": "x"}, "RANK='x'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two'; expected a whole number"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR: not set, but WORLD_SIZE=4"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT='http'"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0: expected a port from 1 to 65535"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT=65536: expected a port"),
        ({"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE=3: expected an equal part of WORLD_SIZE=4"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0"),
        ({"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "2"}, "LOCAL_RANK=2: expected a number from 0 to 1"),
    ],
)
def test_variables_that_do_not_fit(variables, changed, message):
    variables |= TORCHRUN | changed
    with pytest.raises(ValueError, match=message):
        find_world()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1"}, r"SLURM_STEP_TASKS_PER_NODE=2,1: expected as many tasks on each node"),
        ({"SLURM_STEP_NODELIST": "", "SLURM_NODELIST": ""}, "SLURM_STEP_NODELIST: not set"),
        ({"SLURM_PROCID": ""}, "SLURM_PROCID=''"),
    ],
)
def test_variables_of_slurm_that_do_not_fit(variables, changed, message):
    variables |= SRUN | changed
    with pytest.raises(ValueError, match=message):
        find_world()
