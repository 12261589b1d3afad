"""One readable Python file from the definitions of a package that some names need, for machines without the package.

The text of each definition is copied with its comments. Everything lies in one file then, so no two definitions may
have one name.
"""

import ast
import importlib.util
import re
import sys
import textwrap
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

MARKS = re.compile(r"  # (type: ignore|pyright: ignore|noqa).*$", re.MULTILINE)
"""Comments that are for the tools of the package's own repository."""
WIDTH = 120
SHAPES = '''class {0}:
    """`{0}[Tensor, "batch seq"]` is a tensor; the text names its axes, as in the package jaxtyping."""

    def __class_getitem__(cls, kind_and_axes):
        return kind_and_axes[0]
'''
"""In place of the types of jaxtyping, which is no part of transformers."""


class Import(NamedTuple):
    """A name that a module imports: `import module` or `from module import name`."""

    module: str
    name: str | None = None

    @property
    def full(self) -> str:
        return self.module if self.name is None else f"{self.module}.{self.name}"


class Definition:
    """A statement at the top level of a module: the names that it defines, the names that it uses, and its text."""

    def __init__(self, node: ast.stmt, text: str) -> None:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        named = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        self.names = named + [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        self.used = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        self.text = text


class Module:
    """The imports of a module of the package, and its definitions without what is omitted."""

    def __init__(self, name: str, package: str, omit: Collection[str]) -> None:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"{name}: expected a module with a Python file")
        source = Path(spec.origin).read_text()
        tree, lines = ast.parse(source), source.splitlines()
        self.name, self.description = name, (ast.get_docstring(tree) or "").partition("\n")[0]
        top = [*tree.body, *(inner for node in tree.body if isinstance(node, ast.If) for inner in node.body)]
        found = [(node in top, *pair) for node in ast.walk(tree) for pair in _imports(node)]
        self.imports = {local: full for is_top, local, full in found if is_top or _root(full.module) == package}
        self.definitions: list[Definition] = []
        pruned = _Pruned(name, package, self.imports, omit)
        end = 0
        for node, after in pairwise([*tree.body, ast.Pass()]):
            start, end = end + 1, node.end_lineno or 0
            if _is_text(node) or not _defines(node) or pruned.visit(node) is None:
                continue
            if _is_text(after):  # the docstring of a constant
                end = after.end_lineno or 0
            kept = [lines[i - 1] for i in range(start, end + 1) if i not in pruned.lines]
            text = re.sub(r"\n{3,}", "\n\n", MARKS.sub("", "\n".join(kept)).strip())
            self.definitions.append(Definition(node, text))
        self.omitted = pruned.omitted


class _Pruned(ast.NodeTransformer):
    """Removes statements: imports from the package, methods that are omitted, and uses of names that are omitted."""

    def __init__(self, module: str, package: str, imports: dict[str, Import], omit: Collection[str]) -> None:
        self.place, self.package, self.imports, self.omit = [module], package, imports, omit
        self.lines: set[int] = set()
        self.omitted: set[str] = set()
        """Those of `omit` that were found."""

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.expr):
            return node
        if isinstance(node, ast.stmt) and self._unwanted(node):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            self.lines |= set(range(first, (node.end_lineno or 0) + 1))
            return None
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            return self.generic_visit(node)
        self.place.append(node.name)
        self.generic_visit(node)
        self.place.pop()
        if not node.body:
            raise ValueError(f"{'.'.join(self.place)}.{node.name}: nothing is left of it; expected to omit it whole")
        return node

    def _unwanted(self, node: ast.stmt) -> bool:
        own = [full for _, full in _imports(node)]
        if own and all(_root(full.module) == self.package for full in own):
            return True
        names = [".".join([*self.place, node.name])] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        parts = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.stmt)]
        for inner in (inner for part in parts for inner in ast.walk(part)):
            if isinstance(inner, ast.Name) and inner.id in self.imports:
                names.append(self.imports[inner.id].full)
        found = {entry for entry in self.omit for name in names if name == entry or name.startswith(f"{entry}.")}
        self.omitted |= found
        return bool(found)


def flatten(roots: Collection[str], *, omit: Collection[str] = ()) -> str:
    """The source of one file that defines `roots` and everything of their package that they use.

    Args:
        roots: full names, such as `looped.models.transformer.LoopedTransformer`, of one package.
        omit: full names of modules, classes or methods. Statements that use an omitted name are left out, and so is an
            omitted method. Names of other packages may be omitted too, such as `transformers.AutoConfig`.

    Raises:
        ValueError: two definitions or imports have one name, a name is not found, or an entry of `omit` is not met.
    """
    package = _root(next(iter(roots)))
    modules: dict[str, Module] = {}
    needed: dict[Definition, Module] = {}
    before: dict[str, set[str]] = {}
    """By module the modules whose definitions it uses."""
    externals: dict[str, Import] = {}

    def module(name: str) -> Module:
        if name not in modules:
            modules[name] = Module(name, package, omit)
            before[name] = set()
        return modules[name]

    def find(name: str, place: Module) -> tuple[Definition, Module] | None:
        """The definition of a name, as a module knows it; None for a builtin, a local name or another package's."""
        for definition in place.definitions:
            if name in definition.names:
                return definition, place
        if (known := place.imports.get(name)) is None:
            return None
        if _root(known.module) != package:
            if externals.setdefault(name, known) != known:
                raise ValueError(f"{name}: is {known.full} in {place.name}, but {externals[name].full} elsewhere")
            return None
        if known.name is None or (found := find(known.name, module(known.module))) is None:
            raise ValueError(f"{place.name}: {known.full}: expected a definition")
        if known.name != name:
            raise ValueError(f"{place.name}: imports {known.full} as {name}; expected its own name")
        return found

    def need(definition: Definition, place: Module) -> None:
        if definition in needed:
            return
        needed[definition] = place
        for name in sorted(definition.used - {*definition.names}):
            if found := find(name, place):
                if found[1] is not place:
                    before[place.name].add(found[1].name)
                need(*found)
        for other in place.definitions:  # a statement that defines nothing acts on what it uses
            if not other.names and other.used & {*definition.names}:
                need(other, place)

    for root in roots:
        name, _, last = root.rpartition(".")
        if (found := find(last, module(name))) is None:
            raise ValueError(f"{root}: not found")
        need(*found)
    if unmet := {*omit} - {name for m in modules.values() for name in m.omitted}:
        raise ValueError(f"omit: {min(unmet)} is used nowhere")
    _check_names(needed, externals)
    shapes = sorted(name for name, known in externals.items() if known.module == "jaxtyping")
    parts = [_import_lines({name: known for name, known in externals.items() if name not in shapes})]
    if shapes:
        parts.append("\n".join([SHAPES.format(shapes[0]) + "\n", *(f"{name} = {shapes[0]}" for name in shapes[1:])]))
    for name in TopologicalSorter({name: sorted(others) for name, others in before.items()}).static_order():
        kept = [definition.text for definition in modules[name].definitions if definition in needed]
        if kept:
            title = textwrap.fill(f"{name}: {modules[name].description}", WIDTH - 2)
            parts += [textwrap.indent(title, "# "), *kept]
    return "\n\n\n".join(parts) + "\n"


def _check_names(needed: dict[Definition, Module], externals: dict[str, Import]) -> None:
    """Raise ValueError if two modules define one name, or define the name of an import."""
    places = {name: known.module for name, known in externals.items()}
    for definition, module in needed.items():
        for name in definition.names:
            if (other := places.setdefault(name, module.name)) != module.name:
                raise ValueError(f"{name}: is defined in {module.name} and in {other}; expected different names")


def _imports(node: ast.AST) -> Iterator[tuple[str, Import]]:
    """The imports of a statement, by local name."""
    if isinstance(node, ast.Import):
        yield from ((alias.asname or alias.name.partition(".")[0], Import(alias.name)) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from ((alias.asname or alias.name, Import(node.module or "", alias.name)) for alias in node.names)


def _import_lines(externals: dict[str, Import]) -> str:
    """Import statements of other packages, those of Python first."""
    lines: dict[bool, list[str]] = {False: [], True: []}
    grouped: dict[str, list[str]] = {}
    for local, known in sorted(externals.items()):
        installed = _root(known.module) not in sys.stdlib_module_names
        if known.name is None:
            lines[installed].append(f"import {known.module}" + (f" as {local}" if local != known.module else ""))
        else:
            grouped.setdefault(known.module, []).append(known.name + (f" as {local}" if local != known.name else ""))
    for name, items in sorted(grouped.items()):
        line = f"from {name} import {', '.join(items)}"
        if len(line) > WIDTH:
            line = "\n".join([f"from {name} import (", *(f"    {item}," for item in items), ")"])
        lines[_root(name) not in sys.stdlib_module_names].append(line)
    return "\n\n".join("\n".join(group) for group in lines.values() if group)


def _root(name: str) -> str:
    """The package of a full name."""
    return name.partition(".")[0]


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _defines(node: ast.stmt) -> bool:
    """Whether a statement is more than imports, some of which may be for type checkers alone."""
    imports = ast.Import | ast.ImportFrom
    return not (isinstance(node, imports) or (isinstance(node, ast.If) and isinstance(node.body[0], imports)))
