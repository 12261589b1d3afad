"""The cost of starting: the modules that `import looped` and the light commands load, in processes of their own."""

import subprocess
import sys

import pytest

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
    assert "lightning_fabric" in modules("from looped import train"), "else this test would see nothing"


def test_help_loads_no_torch():
    loaded = modules(COMMAND, "--help")
    assert not loaded & {"torch", "numpy", *HEAVY}
    assert len(loaded) < len(modules("pass")) + 300


@pytest.mark.parametrize("command", ["recipes", "tasks"])
def test_lists_load_at_most_torch(command: str, of_torch: int):
    loaded = modules(COMMAND, command)
    assert "looped.cli" in loaded
    assert not loaded & HEAVY
    assert len(loaded) < of_torch + 300
