"""docs/results.md is what the reports under results/ say."""

import json

from benchmarks.results import ROOT, document, kept


def test_the_page_is_up_to_date():
    assert (ROOT / "docs/results.md").read_text() == document(), "run `make results`"


def test_what_is_kept_of_a_report():
    plain = "# A\n\nlead\n\n## Task\n\nsettings\n\n### Scores\n\n| a |\n\n### Learning curves\n\nx\n\n## How\n"
    assert kept(plain) == ["### Scores\n\n| a |"]
    table = "# A\n\n## Table 2, x\n\nof 3\n\n### Sudoku\n\n![c](f.png)\n\nc\n\n| b |\n\n## Sudoku\n\n### Scores\n\ny\n"
    assert kept(table, "Table 2") == ["### Table 2, x\n\nof 3", "#### Sudoku\n\n| b |"]


def test_the_page_quotes_the_stored_speeds_of_text_generation():
    stored = json.loads((ROOT / "results/decoding/decoding.json").read_text())
    rows = [row for row in (ROOT / "results/decoding/notes.md").read_text().splitlines() if row.startswith("| ")]
    for vocab in ("256", "50257"):
        for batch in ("1", "8"):
            start = f"| {int(vocab):,}"
            greedy, drawn = (row for row in rows if row.startswith(start) and row.split("|")[2].strip() == batch)
            found = {
                key.split(", ", 2)[2]: stored[key] for key in stored if f"vocabulary {vocab}, batch {batch}," in key
            }
            assert f"| {found['ours: tokens a second']:,.1f} |" in greedy
            for name in ("older version", "GPT-2", *(["ours, no cache"] if batch == "1" else [])):
                assert f"| {found[f'{name}: its time / ours']:.2f}x |" in greedy
            for name in ("ours, temperature 1", "ours, temperature 1, int8", "older version, temperature 1"):
                assert f"| {found[f'{name}: tokens a second']:,.1f} |" in drawn


def test_the_page_quotes_the_stored_speeds_of_small_models():
    rows = json.loads((ROOT / "results/bench/small_models.json").read_text())["rows"]
    page = (ROOT / "docs/results.md").read_text()
    for row in rows:
        old, new = row["older: milliseconds"], row["this: milliseconds"]
        assert f"| {row['case']} | {old:.1f} | {new:.1f} | {row['times as fast']:.2f}x |" in page
