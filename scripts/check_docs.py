"""Looks at the built documentation in a headless browser: python scripts/check_docs.py build/site.

`mkdocs build --strict` checks links. This script opens each page at the width of a laptop and of a
phone. It reports formulas that were not rendered, images that do not load, errors on the console,
requests to other hosts, and content that is wider than its column: on a phone tables may scroll, on
a laptop only code may. `--screenshots FOLDER` keeps a picture of every page.
Needs `pip install playwright` and Chromium.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

LAPTOP, PHONE = 1280, 390  # width in CSS pixels

LOOK = """tablesMustFit => {
  const main = document.querySelector(".md-content");
  const wide = [...main.querySelectorAll("table, pre, img, math")].filter(e => {
    const box = e.closest(".md-typeset__scrollwrap") ?? e;
    if (tablesMustFit && e.tagName === "TABLE" && box.scrollWidth > box.clientWidth) return true;
    for (let up = e; up !== main; up = up.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false;
    return e.getBoundingClientRect().right > document.documentElement.clientWidth;
  });
  return {
    wide: wide.map(e => `${e.tagName} ${e.textContent.trim().slice(0, 40)}`),
    scrolls: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    missing: [...main.querySelectorAll("img")].filter(i => !i.naturalWidth).map(i => i.src),
    latex: [...main.querySelectorAll(".arithmatex")].map(e => e.textContent),
    formulas: main.querySelectorAll("math").length,
  };
}"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def look(page: Page, url: str, width: int, site: str) -> tuple[list[str], int]:
    """Everything wrong with one page, and the number of its formulas."""
    found: list[str] = []

    def on_request(request):
        if not request.url.startswith((site, "data:")):
            found.append(f"request to {request.url}")

    page.on("console", lambda m: found.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("request", on_request)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(url, wait_until="load")
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_load_state("networkidle")
    seen = page.evaluate(LOOK, width == LAPTOP)
    found += [f"wider than the page: {what}" for what in seen["wide"]]
    found += ["the page scrolls sideways"] if seen["scrolls"] else []
    found += [f"no image at {source}" for source in seen["missing"]]
    found += [f"formula not rendered: {latex}" for latex in seen["latex"]]
    return found, seen["formulas"]


def main() -> None:
    """Prints what is wrong; exit status 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="folder that `mkdocs build` made")
    parser.add_argument("--screenshots", type=Path)
    arguments = parser.parse_args()
    pages = sorted(p.parent.relative_to(arguments.site) for p in arguments.site.rglob("index.html"))
    if not pages:
        sys.exit(f"{arguments.site} has no page: mkdocs build --strict")
    handler = functools.partial(QuietHandler, directory=str(arguments.site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site, findings, formulas = f"http://127.0.0.1:{server.server_port}/", [], 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox"],
        )
        for width in (LAPTOP, PHONE):
            for path in pages:
                page = browser.new_page()
                found, count = look(page, f"{site}{path}/", width, site)
                findings += [f"{path} at {width}: {what}" for what in found]
                formulas += count
                if arguments.screenshots:
                    file = arguments.screenshots / f"{path.name or 'index'}_{width}.png"
                    page.screenshot(path=file, full_page=True)
                page.close()
        browser.close()
    print(*findings, sep="\n")
    print(f"{len(pages)} pages, {formulas // 2} formulas: {len(findings)} findings")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
