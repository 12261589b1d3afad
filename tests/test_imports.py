"""The cost of starting: the modules that `import looped` and the light commands load, in processes of their own."""

import subprocess
import sys

import pytest

from looped.recipes import recipe
from looped.run_folder import write_config

# No light command needs these.
HEAVY = {
    "datasets", "lightning_fabric", "matplotlib", "pandas", "scipy", "sklearn", "tokenizers", "torchmetrics",
    "transformers",
}  # fmt: skip
COMMAND = "import sys; from looped.cli import main; sys.argv = ['looped', *sys.argv[1:]]; assert main() == 0"


def modules(code: str, *arguments: str) -> set[str]:
    """The modules in memory at the end of a process that ran `code`."""
    code += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split("\n")[-2].split())


@pytest.fixture(scope="module")
def of_torch() -> int:
    """How many modules `import torch` loads."""
    return len(modules("import torch"))


def test_importing_looped_loads_neither_torch_nor_numpy():
    loaded = modules("import looped")
    assert "looped" in loaded
    assert not loaded & {"torch", "numpy", *HEAVY}
    assert len(loaded) < len(modules("pass")) + 60


def test_a_public_name_loads_only_what_it_needs(of_torch: int):
    loaded = modules("from looped import LoopedTransformer, ModelConfig")
    assert "torch" in loaded
    assert not loaded & HEAVY
    assert not {"looped.training", "looped.tasks.base", "looped.report"} & loaded
    assert len(loaded) < of_torch + 80
    assert "matplotlib" in modules("from looped import write_report"), "else this test would see nothing"


def test_help_needs_only_the_names_of_the_commands():
    loaded = modules(COMMAND, "--help")
    assert not loaded & {"torch", "numpy", "tyro", *HEAVY}
    assert len(loaded) < len(modules("pass")) + 300


# `--help` of all commands, the completions and the lists. A printed line names the modules that it was first to load.
EVERY_HELP = """
import contextlib, io, sys
from looped.cli import COMMANDS, main
from looped.commands import construct, theory

lines = [[name, "--help"] for name in COMMANDS]
lines += [["theory", name, "--help"] for name in theory.COMMANDS]
lines += [["construct", name, "--help"] for name in construct.CONSTRUCTIONS]
lines += [["train", name, "--help"] for name in ("p-hop-looped", "sudoku@cpu", "wikitext-standard-iso-flops", "lcs")]
lines += [["completion", shell] for shell in ("bash", "zsh", "fish")]
lines += [["recipes"], ["tasks"], ["show", sys.argv[1]]]
for words in lines:
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(words) == 0
    assert len(printed.getvalue().splitlines()) > 3, words
    print(*words, *(set(sys.modules) - before))
"""


def test_help_lists_and_completion_load_no_torch(tmp_path):
    write_config(recipe("edit-distance-small"), tmp_path)
    done = subprocess.run([sys.executable, "-c", EVERY_HELP, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) > 40
    for words in lines:
        assert not {"torch", "networkx", "safetensors", *HEAVY} & set(words), words[:3]


def test_a_report_loads_no_torch():
    code = "import looped.report, looped.run_data, looped.commands.report"
    loaded = modules(code)
    assert "matplotlib" in loaded
    assert not {"torch", "sklearn", "lightning_fabric", "looped.models"} & loaded


def test_lazy_torch_is_torch():
    code = "import sys; from looped.lazy import torch; assert 'torch' not in sys.modules; torch.Tensor; torch.nn.Linear"
    assert "torch" in modules(code)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_on_one_device_loads_no_compiler(optimizer: str, tmp_path):
    words = f"train lcs --task.length 4 --model.d-model 8 --model.num-heads 1 --optim.optimizer {optimizer} "
    words += (
        f"--optim.warmup-steps 0 --train.steps 2 --train.batch-size 4 --train.eval-examples 4 --out {tmp_path}/run "
    )
    loaded = modules(COMMAND, *f"{words} --train.compile False --train.device cpu".split())
    assert {"torch", "looped.training.trainer"} <= loaded
    assert not loaded & {"torch._dynamo", "sympy", *HEAVY}
