"""The documentation site builds without a warning, its links lead somewhere, and it loads nothing from elsewhere."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import looped
from looped.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """The HTML of the site by its path."""
    site = tmp_path_factory.mktemp("site").resolve()
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {path: path.read_text() for path in site.rglob("*.html") if path.name == "index.html"}


def named(pages: dict[Path, str], end: str) -> str:
    (text,) = (text for path, text in pages.items() if str(path).endswith(f"{end}/index.html"))
    return text


def links(text: str) -> set[str]:
    return {html.unescape(link) for link in re.findall(r'(?:href|src)="([^"]*)"', text)}


def test_links_and_anchors_lead_somewhere(pages: dict[Path, str]):
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    broken, checked = [], 0
    for page, text in pages.items():
        for link in links(text):
            if re.match(r"\w+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / unquote(name)).resolve() if name else page
            target = target / "index.html" if target.is_dir() else target
            checked += bool(anchor)
            if not target.exists() or (anchor and unquote(anchor) not in anchors[target]):
                broken.append((page.parent.name, link))
    assert checked > 300
    assert not broken


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, str]):
    for page, text in pages.items():
        loaded = re.findall(r"<(?:link|script|img|iframe)\b[^>]*", text)
        assert loaded
        assert not [tag for tag in loaded if re.search(r'(?:href|src)="(?:https?:)?//', tag)], page


def test_every_public_name_has_its_place(pages: dict[Path, str]):
    text = "".join(text for path, text in pages.items() if path.parts[-3] == "api")
    places = re.findall(r'<h2 id="([\w.]+)"', text)
    assert not {f"looped.{name}" for name in vars(looped)["__all__"]} - set(places)
    assert len(places) == len(set(places))


def test_shapes_are_readable(pages: dict[Path, str]):
    text = html.unescape(re.sub(r"<[^>]+>", "", named(pages, "api/models")))
    assert 'initial_state: Float[Tensor, "batch seq d_model"]' in text


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_show_their_help(pages: dict[Path, str], name: str):
    text = html.unescape(re.sub(r"<[^>]+>", "", named(pages, f"commands/{name}")))
    assert f"usage: looped {name}" in text
    assert "\x1b" not in text
