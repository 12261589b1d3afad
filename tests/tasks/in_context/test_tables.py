"""The task of tables: its files, their hashes, repeated rows, and answers without the files."""

import gzip
import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import result_or_line

from looped.tasks.tables import Tables, TablesConfig


def write(path: Path, rows: list[str]) -> str:
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def points(count: int, seed: int = 0) -> list[str]:
    x = np.random.default_rng(seed).normal(size=(count, 2))
    return [f"{a:.4f},{b:.4f},{'xy'[int(a > b)]}" for a, b in x]


HEAD = "p,q,k"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return write(tmp_path / "a.csv", [HEAD, *points(80)]), write(tmp_path / "b.csv", [HEAD, *points(80, 1)])


def make(files: tuple[str, ...], dim: int = 3, **settings: Any) -> Tables:
    return Tables(TablesConfig(tables=files, held_out=files[-1], points=9, dim=dim, **settings))


def test_it_answers_without_the_files(files):
    task = make(files)
    lines = [HEAD, "1,2,x", "2,1,y", "3,1,"]
    (expected,), _ = task.read(lines, "in", "stop")
    for file in files:
        Path(file).unlink()
    loaded = Tables.load(task.config, Path("nowhere"))
    (prompt,), _ = loaded.read(lines, "in", "stop")
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(prompt[:2], expected[:2], strict=True))
    assert (loaded.spec, loaded.groups, loaded.metric) == (task.spec, task.groups, task.metric)
    assert (loaded.encode([prompt]).inputs == task.encode([expected]).inputs).all()
    assert Tables.load(TablesConfig(target_type="number"), Path("nowhere")).lower_is_better


def test_sources_are_the_hashes_of_the_files(files):
    task = make((*files, "wine"), dim=13)
    first = task.sources()
    assert list(first) == [*files, "wine"]
    assert first[files[0]] == hashlib.sha256(Path(files[0]).read_bytes()).hexdigest()
    assert first["wine"] == make(("iris", "wine"), dim=13).sources()["wine"]
    assert len(set(first.values()) | set(make(("iris", "digits"), dim=64).sources().values())) == 5
    with open(files[0], "a") as file:
        file.write("1,2,x\n")
    assert [name for name, value in task.sources().items() if value != first[name]] == [files[0]]
    Path(files[0]).unlink()
    with pytest.raises(ValueError, match=r"a\.csv: No such file"):
        task.sources()
    assert set(TablesConfig.paths) == {"tables", "held_out"}


def test_compressed_files(files, tmp_path):
    packed = tmp_path / "c.csv.gz"
    packed.write_bytes(gzip.compress(Path(files[0]).read_bytes()))
    plain, compressed = make(files), make((str(packed), files[1]))
    assert (plain.rows[files[0]].x == compressed.rows[str(packed)].x).all()


def test_the_split_of_a_table_without_repeated_rows_is_that_of_its_permutation(files):
    rows = make(files).rows[files[0]]
    rng, expected = np.random.default_rng(2021), np.zeros(80, int)
    for each in (0, 1):
        members = rng.permutation(np.flatnonzero(rows.y == each))
        expected[members[0]], expected[members[1]] = 1, 2
    assert (rows.split == expected).all()


@pytest.mark.parametrize("target_type", ["class", "number"])
def test_equal_rows_are_in_one_split_and_never_in_context_of_each_other(tmp_path, target_type):
    """With 60 copies of each row, a row as query would nearly always have its copy in the context."""
    lines = points(12) if target_type == "class" else [row[:-1] + str(n) for n, row in enumerate(points(12))]
    table = write(tmp_path / "a.csv", [HEAD, *(lines * 60)])
    other = write(tmp_path / "b.csv", [HEAD, *lines])
    task = Tables(TablesConfig(tables=(other, table), held_out=table, dim=2, points=2, target_type=target_type))
    rows = task.rows[table]
    for copies in np.unique(rows.same):
        assert len(set(rows.split[rows.same == copies].tolist())) == 1
    for split in ("train", "test"):
        for prompt in task.sample(split, 100, np.random.default_rng(0), table):
            assert not (prompt.x[0] == prompt.x[1]).all()


def test_queries_are_counted_without_copies(tmp_path):
    """40 different rows of each class, one of them 200 times: 2 queries for each class, as without the copies."""
    rows = points(80)
    few, many = write(tmp_path / "a.csv", [HEAD, *rows]), write(tmp_path / "b.csv", [HEAD, *rows, *rows[:4] * 2])
    for file in (few, many):
        split = make((few, many)).rows[file]
        assert len({(row, s) for row, s in zip(split.same.tolist(), split.split.tolist(), strict=True) if s}) == 4


def test_one_row_again_and_again_leaves_too_few(tmp_path, files):
    file = write(tmp_path / "c.csv", [HEAD, *["1,2,x", "2,1,y", "1,3,x", "5,1,y", "7,7,x", "8,8,y"] * 30])
    message = (
        r"c.csv: 60 rows of two classes for training \(29 of them may repeat the query\); expected at least points=40"
    )
    with pytest.raises(ValueError, match=message):
        Tables(TablesConfig(tables=(file, files[0]), held_out=file, dim=2, points=40))


def test_missing_values_are_zero_after_standardisation(tmp_path, files):
    rows = points(80)
    rows[5] = ",".join(["", *rows[5].split(",")[1:]])
    file = write(tmp_path / "c.csv", [HEAD, *rows])
    with pytest.raises(ValueError, match=r"c\.csv, line 7, column 'p': missing value; expected a number"):
        make((file, files[0]))
    task = make((file, files[0]), missing="mean")
    assert task.rows[file].x[5, 1] == pytest.approx(0, abs=1e-6)
    assert task.rows[file].x[:, 1:][task.rows[file].split == 0].std(0) == pytest.approx(1, abs=0.02)


PIECES = [
    *"@%#,;\t\"'{}\\?\n", "@data\n", "@attribute ", "numeric", "{x,y}", "3e38", "-3e38", "1e-300", "-0", "NA", "x",
    "'?'", "é", "\n1,2,x", "\n3,4,", "\n0.5,7,y", "\n{0 1, 2 x}", "\n?,?,?", "\n2;3;x", "\x1b[31m", "\u2028",
]  # fmt: skip
STARTS = [
    "", "a,b,k\n1,2,x\n3,4,y\n5,6,\n", "a;b;k\n1;2;5\n2;2;7\n3;3;\n", "a,b,k\n1,u,x\n,v,y\n1,v,\n",
    "@attribute a numeric\n@attribute b real\n@attribute k {x,y}\n@data\n1,2,x\n2,1,y\n5,6,?\n",
]  # fmt: skip


@pytest.mark.parametrize("target_type", ["class", "number"])
@pytest.mark.parametrize("categories", ["refuse", "onehot", "drop"])
def test_any_table_to_solve_gives_finite_prompts_or_one_clear_line(target_type, categories):
    config = TablesConfig(target_type=target_type, categories=categories, missing="mean", dim=9, points=9)
    task, rng = Tables.load(config, Path("nowhere")), random.Random(0)
    solved = 0
    for _ in range(400):
        text = rng.choice(STARTS) + "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 6)))
        found = result_or_line(task.read, text.split("\n"), "in", rng.choice(["stop", "skip"]))
        if not isinstance(found, str):
            solved += 1
            batch = task.encode(found[0])
            assert batch.inputs.isfinite().all()
            assert batch.targets.isfinite().all()
            assert all(map(task.describe, found[0]))
    assert solved > 5
