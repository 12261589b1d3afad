"""The page in a real browser: nothing fails, everything is visible, nothing is wider than the screen."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from looped.report import report

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
# The browser reads commands from descriptor 3 and writes answers to 4.
WRAPPER = """
import os, sys
os.dup2(int(sys.argv[2]), 100)
os.dup2(int(sys.argv[1]), 3)
os.dup2(100, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
MEASURE = """(() => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const visualisations = '.charts svg, .board:not(.key), table.heat, table.slots';
  return {
    inner: innerWidth, scroll: document.documentElement.scrollWidth,
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    visualisations: [...document.querySelectorAll(visualisations)].map(
      e => [e.tagName + '.' + e.className, box(e), e.checkVisibility()]),
    texts: [...document.querySelectorAll('.charts svg')].map(svg => [...svg.querySelectorAll('text')].map(
      t => [t.textContent, box(t), getComputedStyle(t).fill])),
  };
})()"""


class Browser:
    """Headless Chromium with one tab, driven through the DevTools protocol over a pipe."""

    def __init__(self, profile: Path) -> None:
        command_read, self.commands = os.pipe()
        self.answers, answer_write = os.pipe()
        ends = [str(command_read), str(answer_write)]
        command = [sys.executable, "-c", WRAPPER, *ends, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            command, pass_fds=(command_read, answer_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(command_read)
        os.close(answer_write)
        self.session: str | None = None
        self.number = 0
        self.buffer = b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one command; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, page: Path, *, width: int, dark: bool = False, script: bool = True) -> None:
        """Load a page in a screen of this width; events of earlier pages are forgotten."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def value(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def found(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] in methods]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        os.close(self.commands)
        os.close(self.answers)

    def _next(self, seconds: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            assert select.select([self.answers], [], [], max(0.0, deadline - time.monotonic()))[0], "no answer"
            data = os.read(self.answers, 1 << 16)
            assert data, "the browser has ended"
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(runs_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report([runs_root], tmp_path_factory.mktemp("page"))


def overlap(a: list[float], b: list[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share more than a pixel's edge."""
    return min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_everything_is_seen_and_nothing_is_too_wide(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    seen = browser.value(MEASURE)
    assert (seen["inner"], seen["dark"]) == (width, dark)
    ground = [int(part) for part in seen["ground"][4:-1].split(", ")]
    assert max(ground) < 60 if dark else min(ground) > 200, "the scheme really changes the page"

    assert browser.found("Runtime.exceptionThrown", "Log.entryAdded") == []
    assert [e["args"] for e in browser.found("Runtime.consoleAPICalled")] == []
    assert [e["request"]["url"] for e in browser.found("Network.requestWillBeSent")] == [page.as_uri()]

    assert seen["scroll"] <= width
    kinds = [kind for kind, _, _ in seen["visualisations"]]
    # 4 figures for each of 3 problems; of 2 puzzles the board with a slider and those of loops 1, 2, 4, 8, 12.
    assert sum("svg" in kind for kind in kinds) == 12
    assert sum(kind.startswith("DIV.board") for kind in kinds) == 12
    assert (kinds.count("TABLE.heat"), kinds.count("TABLE.slots")) == (2, 1)
    for kind, (left, top, right, bottom), visible in seen["visualisations"]:
        assert visible, kind
        assert right - left > 80, kind
        assert bottom - top > 80, kind


@pytest.mark.parametrize("width", [360, 1200])
def test_labels_of_figures_are_legible_and_apart(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width, dark=True)
    seen = browser.value(MEASURE)
    for texts in seen["texts"]:
        assert len(texts) > 5
        for i, (label, box, fill) in enumerate(texts):
            assert fill == seen["ink"], "figures take the page's text colour"
            assert min(box[2] - box[0], box[3] - box[1]) > 5, label
            assert max(box[2] - box[0], box[3] - box[1]) >= 9, label
            assert box[0] >= 0, label
            assert box[2] <= width, label
            assert not [other for other, b, _ in texts[i + 1 :] if overlap(box, b)], label


def test_the_slider_shows_each_loop(browser: Browser, page: Path) -> None:
    browser.open(page, width=360)
    cells = "[...f.querySelectorAll('.board i')].map(c => c.textContent + [...c.classList].sort()).join()"
    board = f"[...document.querySelectorAll('.frame')].map(f => {cells})"
    player, first, *_, last = browser.value(board)[:6]
    assert player == last != first
    slider = "document.querySelector('.player input')"
    browser.value(f"{slider}.value = 0; {slider}.dispatchEvent(new Event('input'))")
    assert browser.value(board)[0] == first
    assert browser.value("document.querySelector('.player output').textContent") == "1"


def test_the_page_is_complete_without_scripts(browser: Browser, page: Path) -> None:
    browser.open(page, width=360, script=False)
    assert browser.value("document.querySelectorAll('.player').length") == 2
    assert not browser.value("[...document.querySelectorAll('.player')].some(p => p.checkVisibility())")
    seen = [visible for kind, _, visible in browser.value(MEASURE)["visualisations"] if kind.startswith("DIV.board")]
    assert seen.count(True) == 10
