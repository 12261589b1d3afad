"""docs/results.md is what the reports under results/ say."""

from benchmarks.results import ROOT, document, kept


def test_the_page_is_up_to_date():
    assert (ROOT / "docs/results.md").read_text() == document(), "run `make results`"


def test_what_is_kept_of_a_report():
    plain = "# A\n\nlead\n\n## Task\n\nsettings\n\n### Scores\n\n| a |\n\n### Learning curves\n\nx\n\n## How\n"
    assert kept(plain) == ["### Scores\n\n| a |"]
    table = "# A\n\n## Table 2, x\n\nof 3\n\n### Sudoku\n\n![c](f.png)\n\nc\n\n| b |\n\n## Sudoku\n\n### Scores\n\ny\n"
    assert kept(table) == ["### Table 2, x\n\nof 3", "#### Sudoku\n\n| b |"]
