"""The house keeps its order: imports go down, files stay short, public names and documented paths exist."""

import ast
import re
from pathlib import Path

import pytest

import looped
from looped.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
# From the bottom up. A module may import from lower rows and from its own part of its own row.
ROWS = [
    {"strict", "files", "intervals", "lazy", "user_code"},
    {"tasks"},
    {"config"},
    {"nn"},
    {"models"},
    {"costs"},
    {"evaluation", "theory"},
    {"analysis"},
    {"training"},
    {"recipes", "report", "runs"},
    {"paper"},
    {"commands"},
    {"cli"},
]
LEVEL = {part: level for level, row in enumerate(ROWS) for part in row}
MODULES = sorted(p for p in (ROOT / "looped").rglob("*.py") if p != ROOT / "looped/__init__.py")
PYTHON = sorted(p for folder in ("looped", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "looped").parts[0].removesuffix(".py")


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    part = part_of(path)
    assert part in LEVEL, f"{part}: give it a row here and in docs/design.md"
    for name in imported(path):
        if name.startswith("looped."):
            other = name.split(".")[1]
            assert other == part or LEVEL[other] < LEVEL[part], f"{path}: imports {name}"
        assert part != "report" or not name.startswith(("looped.models", "looped.training", "torch"))
        a_task = name.startswith("looped.tasks.") and name.split(".")[2] in TASKS
        assert not a_task or part in ("tasks", "recipes"), f"{path}: knows a task, {name}"
        pure = part == "theory" and path.stem not in ("construction", "rates", "algorithms")
        assert not pure or not name.startswith("looped.") or name.startswith("looped.theory"), f"{path}: imports {name}"
        assert not name.startswith("lightning") or part == "training", f"{path}: imports {name}"
        assert not name.startswith("matplotlib") or path.stem.endswith("figures"), f"{path}: imports {name}"


HEAVY = {"rapidfuzz", "tokenizers", "sklearn", "scipy", "datasets", "transformers"}


@pytest.mark.parametrize("path", sorted((ROOT / "looped/tasks").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_tasks_import_heavy_libraries_where_they_are_used(path):
    for node in ast.parse(path.read_text()).body:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not {name.partition(".")[0] for name in names} & HEAVY, f"{path}: imports {names} when it is imported"


def test_files_are_short():
    assert len(PYTHON) > 50
    long = {str(p.relative_to(ROOT)): n for p in PYTHON if (n := p.read_text().count("\n")) > 400}
    assert not long


def test_one_loop_over_the_core():
    loops = [p for p in MODULES if re.search(r"for \w+ in range\((first, last|num_loops|loops)\)", p.read_text())]
    assert [p.name for p in loops] == ["iteration.py"]


def test_public_names():
    names = vars(looped)["__all__"]  # type checkers read the imports instead
    assert names == sorted(names) == dir(looped)
    assert " ".join(names) == (
        "Act Batch Block Cache Context Entropy ExitRule Fixed Gate Injection KLDivergence KVSlot KVStore LoopSchedule "
        "LoopedModel LoopedOutput LoopedTransformer ModelConfig Modulation NonFiniteError Observation OptimConfig "
        "RECIPES RunConfig Sampling ScheduleConfig StateChange TASKS Task TrainConfig Unchanged calibrate_run complete "
        "evaluate evaluate_run generate iterate load_run parse_rule recipe stream train write_report"
    )
    assert not {path.stem for path in (ROOT / "looped").iterdir()} & set(names), "a module would hide the name"
    assert all(getattr(looped, name) is not None for name in names)
    with pytest.raises(AttributeError, match="module 'looped' has no attribute 'trian'"):
        looped.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_paths_in_the_documents_exist():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = 0
    for document in documents:
        for path in re.findall(r"(?:looped|tests|docs|results|benchmarks)/[\w./-]*\w", document.read_text()):
            found += 1
            assert (ROOT / path).exists(), f"{document.name} names {path}"
    assert found > 20
