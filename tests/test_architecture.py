"""The house keeps its order: imports go down, files stay short, public names and documented paths exist."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import looped
from looped.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
# From the bottom up. A module may import from lower rows and from its own part of its own row.
ROWS = [
    {"strict", "extras", "files", "locks", "printing", "reading", "machine", "intervals", "lazy", "user_code"},
    {"schemas", "tasks"},
    {"model_config"},
    {"config"},
    {"nn", "run_folder"},
    {"card", "models", "launch", "run_data"},
    {"costs", "hf", "pretrained"},
    {"evaluation", "export", "theory"},
    {"analysis"},
    {"training"},
    {"recipes", "report", "runs"},
    {"paper"},
    {"commands"},
    {"cli"},
    {"__main__"},
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
        pure = part == "theory" and path.stem not in (
            "construction",
            "rates",
            "weights",
            "execution",
            "checks",
        )
        mathematics = name.startswith(("looped.theory", "looped.strict"))
        assert not pure or not name.startswith("looped.") or mathematics, f"{path}: imports {name}"
        assert not name.startswith("lightning") or part == "training", f"{path}: imports {name}"
        assert not name.startswith("matplotlib") or path.stem.endswith("figures"), f"{path}: imports {name}"


def rooms(modules: list[Path]) -> dict[str, set[str]]:
    """The rooms of the house (packages and modules right under `looped`), with the rooms that each imports from."""
    graph: dict[str, set[str]] = {part_of(path): set() for path in modules}
    for path in modules:
        for name in imported(path):
            other = name.split(".")[1] if name.startswith("looped.") else ""
            if other in graph and other != part_of(path):
                graph[part_of(path)].add(other)
    return graph


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room, one above the highest that it imports from. Raises CycleError for a circle."""
    found: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        found[room] = 1 + max((found[below] for below in graph[room]), default=0)
    return found


def test_the_house_has_no_circle_and_few_floors():
    graph = rooms(MODULES)
    assert "commands" in graph["cli"]
    assert graph["commands"] > {"runs", "report"}
    assert max(floors(graph).values()) < 12, floors(graph)
    assert all(LEVEL[below] < LEVEL[room] for room in graph for below in graph[room])
    with pytest.raises(CycleError):
        floors(graph | {"strict": {"cli"}})


def test_design_shows_the_rows():
    (shown,) = re.findall(r"## Import order\n\n```\n(.*?)```", (ROOT / "docs/design.md").read_text(), re.DOTALL)
    assert [set(line.split(", ")) for line in shown.splitlines()] == ROWS[::-1]


HEAVY = {"rapidfuzz", "tokenizers", "sklearn", "scipy", "datasets", "transformers"}


@pytest.mark.parametrize("path", sorted((ROOT / "looped/tasks").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_tasks_import_heavy_libraries_where_they_are_used(path):
    for node in ast.parse(path.read_text()).body:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not {name.partition(".")[0] for name in names} & HEAVY, f"{path}: imports {names} when it is imported"


def test_names_of_test_files_differ():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}  # pytest imports each under its name alone


def test_files_are_short():
    assert len(PYTHON) > 50
    long = {str(p.relative_to(ROOT)): n for p in PYTHON if (n := p.read_text().count("\n")) > 400}
    assert not long


def loops_over_core(source: str) -> list[str]:
    """The functions that `for` loops over a `range` apply to a state again and again (`state = f(state, ...)`) or call.

    The core may go by any name, so that a loop is known by what it does: it gives a name the value of a call on it.
    """
    found = []
    for loop in ast.walk(ast.parse(source)):
        if not (isinstance(loop, ast.For) and ast.unparse(loop.iter).startswith("range(")):
            continue
        for node in (inner for statement in loop.body for inner in ast.walk(statement)):
            if isinstance(node, ast.Call) and re.search(r"(core|block)s?\b", ast.unparse(node.func)):
                found.append(ast.unparse(node.func))
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                given = {value.id for value in node.value.args if isinstance(value, ast.Name)}
                if given & {target.id for target in node.targets if isinstance(target, ast.Name)}:
                    found.append(ast.unparse(node.value.func))
    return found


def test_one_loop_over_the_core():
    for loop in ("for t in range(r): h = f(h, t)", "for _ in range(n):\n  for b in x: x = self.blocks[b](y)"):
        assert loops_over_core(loop)
    assert not loops_over_core("for block in self.core: h = block(h)\nfor t in range(r): h = t")
    paths = [path for path in MODULES if part_of(path) in ("nn", "models", "evaluation", "analysis", "theory")]
    found = {path.name: names for path in paths if (names := loops_over_core(path.read_text()))}
    # Power iteration applies a Jacobian; a circuit runs in exact integers, without a model.
    assert found == {"iteration.py": ["one"], "stability.py": ["apply"], "circuit.py": ["layer"]}


def test_public_names():
    names = vars(looped)["__all__"]  # type checkers read the imports instead
    assert names == sorted(names) == dir(looped)
    assert " ".join(names) == (
        "Act Batch Block Cache Context Entropy ExitRule Fixed Gate Injection KLDivergence KVSlot KVStore LoopSchedule "
        "LoopedModel LoopedOutput LoopedTransformer ModelConfig Modulation NonFiniteError Observation OptimConfig "
        "RECIPES RunConfig Sampling ScheduleConfig StateChange TASKS Task TrainConfig Unchanged calibrate_run complete "
        "evaluate evaluate_run generate iterate load_run parse_rule recipe solve stream train write_report"
    )
    assert not {path.stem for path in (ROOT / "looped").iterdir()} & set(names), "a module would hide the name"
    assert all(getattr(looped, name) is not None for name in names)
    with pytest.raises(AttributeError, match="module 'looped' has no attribute 'trian'"):
        looped.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def docstrings(path: Path) -> str:
    """All docstrings of a Python file, those below fields included."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Expr)]
    texts = [node.value.value for node in nodes if isinstance(node.value, ast.Constant)]
    return "\n".join(text for text in texts if isinstance(text, str))


def test_paths_in_documents_and_docstrings_exist():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = {path: path.read_text() for path in documents} | {path: docstrings(path) for path in PYTHON}
    named = [
        (source, path)
        for source, text in texts.items()
        for path in re.findall(r"(?<![\w/.])(?:looped|tests|docs|results|benchmarks)/[\w./-]*\w", text)
    ]
    assert len([source for source, _ in named if source in documents]) > 20
    assert len([source for source, _ in named if source not in documents]) > 10
    missing = [f"{source.relative_to(ROOT)} names {path}" for source, path in named if not (ROOT / path).exists()]
    assert not missing
