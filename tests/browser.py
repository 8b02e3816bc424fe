"""Debian's Chromium without a window, driven by Playwright: what a reader's browser does."""

import contextlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
UNSCROLLED = """() => {
  for (const part of document.querySelectorAll(".scroll, .scroll :not(.hidden)"))
    Object.assign(part.style, {overflow: "visible", maxHeight: "none", position: "static"});
}"""  # so that axe sees what lies behind what


@dataclass
class Watched:
    """A page, what it asked for, and what its console said or its scripts threw."""

    page: object
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def open(self, file: Path):
        self.page.goto(file.resolve().as_uri())
        self.page.wait_for_load_state("load")
        return self.page

    def violations(self):
        """What axe-core finds wrong, or cannot tell, with the page as it is."""
        self.page.set_viewport_size({"width": 5000, "height": 2000})
        self.page.evaluate(UNSCROLLED)
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run()")
        return [
            f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for rule in (*found["violations"], *found["incomplete"])
            for node in rule["nodes"]
        ]


@contextlib.contextmanager
def chromium():
    """A browser. The test is skipped, with a reason, where it is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).is_file():
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def watched(browser, **options):
    """A page of its own, without a network, whose every request, complaint and dialog is kept."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 900}, **options)
    found = Watched(context.new_page())
    page = found.page
    page.set_default_timeout(10_000)
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("console", lambda said: found.complaints.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))

    def dismiss(dialog):
        found.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    try:
        yield found
    finally:
        context.close()
