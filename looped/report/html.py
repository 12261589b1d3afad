"""report.html: one self-contained file. It needs no network and works without its script."""

import re
from collections.abc import Sequence
from itertools import groupby

from looped.report.blocks import Block, Chart, Html, Section, Sentences, Table
from looped.report.escaping import escape
from looped.report.style import CSS, SCRIPT

TEXT_COLUMNS = {"run", "recipe", "date", "state", "variant"}
# The browser must load nothing from elsewhere; attention maps are images within the page.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole document, with every text escaped."""
    links = "".join(f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(sections))
    body = "\n".join(_section(section, 2, f"s{i}") for i, section in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
<nav>{links}</nav>
{body}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _section(section: Section, level: int, anchor: str) -> str:
    kind = "takeaway" if level > 2 or not section.parts else "settings"
    head = f'<h{level}>{escape(section.title)}</h{level}>\n<p class="{kind}">{escape(section.takeaway)}</p>'
    blocks = []
    for is_chart, members in groupby(section.blocks, key=lambda block: isinstance(block, Chart)):
        inner = "\n".join(_block(block) for block in members)
        blocks.append(f'<div class="charts">{inner}</div>' if is_chart else inner)
    parts = [_section(part, level + 1, f"{anchor}-{i}") for i, part in enumerate(section.parts)]
    return "\n".join([f'<section id="{anchor}">', head, *blocks, *parts, "</section>"])


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Chart):
        caption = escape(block.caption)
        drawing = f'<div role="img" aria-label="{caption}">{block.figure.inline}</div>'
        return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"
    if isinstance(block, Sentences):
        items = [escape(item) for item in block.items]
        if len(items) <= 1:
            return "".join(f'<p class="caption">{item}</p>' for item in items)
        return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
    assert isinstance(block, Html)
    return block.html


def _table(table: Table) -> str:
    kinds = ["text" if column in TEXT_COLUMNS else "number" for column in table.columns]
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(column)}</th>'
        for column, kind in zip(table.columns, kinds, strict=True)
    )
    rows = []
    for first, *others in table.rows:
        cells = "".join(f'<td class="{kind}">{_cell(c)}</td>' for c, kind in zip(others, kinds[1:], strict=True))
        wide = ' class="wide"' if "\n" in first else ""
        rows.append(f'<tr><th scope="row"{wide}>{_cell(first)}</th>{cells}</tr>')
    caption = f'<p class="caption">{escape(table.caption)}</p>' if table.caption else ""
    grid = f'<table class="data"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll" tabindex="0">{grid}</div>{caption}'


def _cell(text: str) -> str:
    main, _, second = text.partition("\n")
    name = re.sub(r"([_/])", r"\1<wbr>", escape(main)) if len(main) > 20 else escape(main)  # long names may break
    return name + (f"<small>{escape(second)}</small>" if second else "")
