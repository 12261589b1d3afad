"""Everything that the README shows happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("design", "results", "log", "theory", "security", "constructions")
TEXT = (ROOT / "README.md").read_text()


def block(pattern: str) -> tuple[str, ...]:
    match = re.search(pattern, TEXT, re.DOTALL)
    assert match, pattern
    return match.groups()


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_example(tmp_path):
    code, expected = block(r"```python\n(.*?)```\s+```text\n(.*?)```")
    assert 8 <= code.count("\n") <= 12
    assert run([sys.executable, "-c", code], tmp_path) == expected


def test_commands(tmp_path):
    (commands,) = block(r"## On the command line\s+```sh\n(.*?)```")
    assert commands.count("looped ") >= 9
    output = run(["bash", "-e", "-c", commands], tmp_path)
    assert "abcadbcadcbabdcabcdacbda" in output
    assert (tmp_path / "runs/mine/report/report.html").exists()
    assert "looped train p-hop-one-layer" in output


def test_beyond_one_machine(tmp_path):
    (commands,) = block(r"## Beyond one machine\s+```sh\n(.*?)```")
    output = run(["bash", "-e", "-c", commands.replace("--train.steps 200", "--train.steps 110")], tmp_path)
    assert (tmp_path / "runs/two/summary.json").exists()
    assert (tmp_path / "runs/sweep/slurm/array.sh").exists()
    assert "runs/sweep: 4 waiting" in output
    assert "512 GPUs: --train.devices 512 " in output


def test_build_your_own(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "parity.py").write_text(blocks[3])
    assert "torch.Size([2, 10, 50])" in run([sys.executable, "-c", blocks[1]], tmp_path)
    assert "tensor(0." in run([sys.executable, "-c", blocks[2]], tmp_path)
    (commands,) = block(r"```sh\n(looped --import parity.*?)```")
    output = run(["bash", "-e", "-c", commands.replace("--train.steps 300", "--train.steps 110")], tmp_path)
    assert "0111" in output


def test_models_of_transformers(tmp_path):
    code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[4]
    assert run([sys.executable, "-c", code], tmp_path) == "torch.Size([1, 8])\n"


def test_paragraphs_are_short():
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    items = [part for part in re.split(r"\n\s*\n|\n(?=- )", prose) if not part.lstrip().startswith("|")]
    assert len(items) > 20
    assert not [part for part in items if part.strip().count("\n") > 3]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", TEXT):
        assert target == "are" or re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_number_in_the_results_page_has_a_file():
    page = (ROOT / "docs/results.md").read_text()
    named = re.findall(r"results/[\w./-]+\w", page)
    assert len(named) >= 3
    assert all((ROOT / name).exists() for name in named)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *(f"docs/{page}.md" for page in PAGES)])
def test_links_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([\w./-]+\.(?:md|png|svg|csv))\)", page.read_text()):
        assert (page.parent / target).exists(), target
