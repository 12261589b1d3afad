"""The array file under a simulated Slurm: a loop over the tasks with Slurm's variables, its signals and its requeue."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.killed_sweep import RECIPE, SETTINGS, left_over, results
from looped.cli import main
from looped.commands.arguments import override_words, training_run
from looped.launch import array_task
from looped.launch.job import Job
from looped.launch.slurm import job_options
from looped.recipes import complete, recipe
from looped.run_folder import Failure, Summary, read_file
from looped.runs import evaluate_run
from looped.training import train

pytestmark = pytest.mark.usefixtures("one_thread")
SWEEP = [RECIPE, "--out", "runs/a sweep", "--launcher", "slurm"]
SUMMARY = {
    "recipe": RECIPE, "metric": "accuracy", "lower_is_better": False, "steps": 4, "examples": 32, "seconds": 1.0,
    "finished": "steps", "parameters": 9, "non_embedding_parameters": 9, "effective_depth": 2,
    "flops_per_example": 9, "best": None,
}  # fmt: skip
OVERRIDE = ["--override", *SETTINGS, "train.steps=300"]
# Slurm copies the file when it is submitted, and runs it in any folder, each task when there is room. `event-TASK-N`
# says what happens in the N-th start of a task: a signal to the task (a time limit, a preemption), or to its child.
SBATCH = """\
#!/bin/bash
cp "$1" "$SLURM/script"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
export SLURM_ARRAY_JOB_ID=70
for SLURM_ARRAY_TASK_ID in $(seq 0 "$last"); do
    export SLURM_ARRAY_TASK_ID SLURM_JOB_ID=$((71 + SLURM_ARRAY_TASK_ID))
    for start in 0 1 2 3; do
        rm -f "$SLURM/requeue-$SLURM_JOB_ID"
        (cd / && exec bash "$SLURM/script") >> "$SLURM/out-$SLURM_ARRAY_TASK_ID" 2>&1 &
        task=$!
        event="$SLURM/event-$SLURM_ARRAY_TASK_ID-$start"
        if [ -e "$event" ]; then
            read -r whom how metrics < "$event"
            size=$(stat -c %s "$metrics" 2> /dev/null || echo 0)
            for _ in $(seq 2000); do
                [ "$(stat -c %s "$metrics" 2> /dev/null || echo 0)" -gt "$size" ] && break
                sleep 0.03
            done
            case $whom in
            task) kill -s "$how" $task ;;
            child) kill -s "$how" $(cat /proc/$task/task/*/children) ;;
            esac
            [ "$how" = TERM ] && touch "$SLURM/requeue-$SLURM_JOB_ID"  # Slurm itself requeues a preempted job
        fi
        wait $task
        echo "$SLURM_ARRAY_TASK_ID $start $?" >> "$SLURM/ended"
        [ -e "$SLURM/requeue-$SLURM_JOB_ID" ] || break
    done
done
"""
SCONTROL = '#!/bin/bash\n[ "$1" = requeue ] && touch "$SLURM/requeue-$2"\n'
SRUN = '#!/bin/bash\necho "$@" >> "$SLURM/srun"\nexit 3\n'


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a simulated Slurm, whose programs are in PATH. The working folder is another one."""
    folder = tmp_path / "slurm"
    (folder / "bin").mkdir(parents=True)
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("srun", SRUN)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder


def submit(line: str) -> None:
    subprocess.run(line, shell=True, check=True, timeout=300)


def test_an_array_ends_as_runs_here(slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Task 0 is preempted, then meets its time limit, then its training is killed. Task 1 cannot succeed."""
    runs = [tmp_path / "runs/a sweep" / f"{RECIPE}-seed{seed}" for seed in range(2)]
    for start, event in enumerate(["task TERM", "task USR1", "child KILL"]):
        (slurm / f"event-0-{start}").write_text(f"{event} {runs[0]}/metrics.jsonl\n")
    runs[1].mkdir(parents=True)
    (runs[1] / "config.json").write_text("{")
    command = ["compare", *SWEEP, "--seeds", "0", "1", "--jobs", "2", "--slurm", "partition=gpu", *OVERRIDE]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == "sbatch 'runs/a sweep/slurm/array.sh'\n"
    assert "runs left: 2." in err
    assert main([*command, "--dry-run"]) == 0
    text = (tmp_path / "runs/a sweep/slurm/array.sh").read_text()
    assert capsys.readouterr().out in text
    assert "#SBATCH --array=0-1%2\n" in text
    assert "#SBATCH --partition=gpu\n" in text
    submit(out)

    ended = (slurm / "ended").read_text().splitlines()
    assert ended == ["0 0 143", f"0 1 {128 + signal.SIGUSR1}", "0 2 0", "1 0 2"]
    assert "killed by SIGKILL; it begins again" in (slurm / "out-0").read_text()
    failure = read_file(runs[1], Failure)
    assert failure is not None
    assert (failure.code, failure.tries) == (2, 1)
    run, _, _ = training_run(RECIPE, [*override_words(OVERRIDE[1:]), "--train.seed", "0"])
    train(run, tmp_path / "undisturbed")
    evaluate_run(tmp_path / "undisturbed")
    assert results(runs[0]) == results(tmp_path / "undisturbed")
    assert not [path for path in runs[0].rglob("*") if left_over(path)]

    assert main(["status", "runs/a sweep"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"seed1: 1 try on \S+, exit code 2: .*config.json:1: not JSON", shown)
    assert "runs/a sweep: 1 done, 1 failed" in shown
    assert main(command) == 0  # the report of the others, and an array with what is left
    assert capsys.readouterr().out.splitlines() == [out.strip(), "runs/a sweep/report/report.html"]
    assert "#SBATCH --array=0-0%2\n" in (tmp_path / "runs/a sweep/slurm/array.sh").read_text()


def test_a_training_on_many_devices_is_started_by_srun(slurm: Path, capsys: pytest.CaptureFixture[str]):
    words = ["compare", *SWEEP, "--slurm", "nodes=2", *OVERRIDE, "train.devices=4"]
    assert main(words) == 0
    file = Path("runs/a sweep/slurm/array.sh")
    assert "#SBATCH --ntasks-per-node=2\n" in file.read_text()
    submit(capsys.readouterr().out)
    started = (slurm / "srun").read_text().splitlines()
    assert len(started) == 2  # it failed with code 3, so it was started again
    begin = f"--kill-on-bad-exit=1 {sys.executable} -P -m looped.cli train {RECIPE} --out runs/a sweep"
    assert started[0].startswith(begin)
    assert (slurm / "ended").read_text() == "0 0 3\n"


def test_an_evaluation_beyond_the_time_limit_is_not_queued_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Python's place has a program whose evaluation gets the signal. There is no `scontrol` to queue the task again."""
    (tmp_path / "program").write_text(
        "#!/bin/sh\ncase $4 in evaluate) kill -USR1 $LOOPED_PARENT; exec sleep 60;; esac\n"
    )
    (tmp_path / "program").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "program"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    run = tmp_path / "run"
    run.mkdir()
    (run / Summary.file).write_text(json.dumps(SUMMARY))
    assert array_task.main(f"looped train {RECIPE} --out {run} && looped evaluate {run}") == 3
    for number, handler in handlers.items():
        signal.signal(number, handler)
    failure = read_file(run, Failure)
    assert failure is not None
    assert failure.reason == "the evaluation takes longer than the time limit of a job"


def test_the_file_is_proper_bash_whatever_the_settings(slurm: Path, capsys: pytest.CaptureFixture[str]):
    strange = """it's "$HOME" `date` \\ %A #! é"""
    out = Path("it's %A") / "runs"
    words = ["compare", RECIPE, "--out", str(out), "--launcher", "slurm", *OVERRIDE, f"note={strange}"]
    assert main(words) == 0
    file = out / "slurm/array.sh"
    subprocess.run(["bash", "-n", file], check=True)
    if program := shutil.which("shellcheck"):
        subprocess.run([program, file], check=True)
    assert "it'\"'\"'s %%A/runs/slurm/%A_%a.txt" in file.read_text()
    told = ["bash", "-c", 'exec() { printf "%s\\n" "$@"; }; . "$0"', file]  # `exec` prints its words
    *_, line = subprocess.check_output(told, env=os.environ | {"SLURM_ARRAY_TASK_ID": "0"}, text=True).splitlines()
    assert strange in shlex.split(line)
    for number, problem in (
        ("", "expected a task of an array; submit this file"),
        ("9", "expected a task from 0 to 0"),
    ):
        variables = os.environ | {"SLURM_ARRAY_TASK_ID": number}
        ended = subprocess.run(["bash", file], env=variables, capture_output=True, text=True, check=False)
        assert ended.returncode != 0
        (line,) = ended.stderr.splitlines()
        assert problem in line
    capsys.readouterr()
    assert main([*words[:-1], "note=x\ny"]) == 2
    assert "a setting has a line break" in capsys.readouterr().err


def test_runs_on_different_numbers_of_devices_need_different_arrays(tmp_path: Path):
    one = Job(tmp_path, [], complete(recipe(RECIPE)))
    many = one._replace(run=dataclasses.replace(one.run, train=dataclasses.replace(one.run.train, devices=2)))
    assert job_options([one, one], {}) == {"job-name": "looped", "requeue": "", "open-mode": "append"}
    with pytest.raises(ValueError, match=r"train.devices=\[1, 2\]: expected one number"):
        job_options([one, many], {})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--launcher ray", "'ray'"),
        ("--jobs 0", "--jobs 0: expected at least one run at a time"),
        ("--slurm partition=gpu", "--slurm partition=gpu: has no effect with --launcher local"),
        ("--launcher slurm --slurm =gpu", "--slurm =gpu: expected KEY=VALUE"),
        ("--launcher slurm --slurm cpus_per_task=4", "--slurm cpus_per_task=4: expected KEY=VALUE"),
        ("--launcher slurm --slurm array=0-9", "--slurm array=0-9: array follows from the runs"),
        ("--launcher slurm --slurm time=1 time=2", "--slurm time=2: time is given twice"),
        ("--launcher slurm --slurm nodes=3 --override train.devices=4", "--slurm nodes=3: expected a divisor of"),
    ],
)
def test_wrong_options(words: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["compare", RECIPE, "--out", str(tmp_path / "runs"), *words.split()]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs/slurm").exists()
