"""Looks at the built documentation in a headless browser: python scripts/check_docs.py build/site.

Each page at the width of a laptop and of a phone: links and pictures that lead nowhere, formulas
that KaTeX left as text or could not read, errors on the console, requests to other hosts, and
what is wider than its column: on a phone tables may be scrolled, on a laptop only code may.
Needs `pip install playwright` and Chromium.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urldefrag

from playwright.sync_api import Page, sync_playwright

WIDTHS = (1280, 390)  # of a laptop, of a phone; CSS pixels

LOOK = """tables => {
  const main = document.querySelector(".md-content");
  const wide = [...main.querySelectorAll("table, pre, img, .katex-display")].filter(e => {
    const box = e.closest(".md-typeset__scrollwrap") ?? e;
    if (tables && e.tagName === "TABLE" && box.scrollWidth > box.clientWidth) return true;
    for (let up = e; up !== main; up = up.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false;
    return e.getBoundingClientRect().right > document.documentElement.clientWidth;
  });
  return {
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    anchors: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
    wide: wide.map(e => `${e.tagName} ${e.textContent.trim().slice(0, 40)}`),
    scrolls: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    pictures: [...main.querySelectorAll("img")].filter(i => !i.naturalWidth).map(i => i.src),
    formulas: [...main.querySelectorAll(".arithmatex")]
      .filter(e => !e.querySelector(".katex")).map(e => e.textContent),
    unread: [...main.querySelectorAll(".katex-error")].map(e => e.textContent),
    rendered: main.querySelectorAll(".katex").length,
  };
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def look(page: Page, base: str, path: str, width: int) -> dict:
    """What one page shows, with everything that went wrong on the way as `trouble`."""
    trouble: list[str] = []
    listeners = {
        "console": lambda m: trouble.append(f"console: {m.text}") if m.type == "error" else None,
        "pageerror": lambda error: trouble.append(f"script: {error}"),
        "request": lambda r: (
            None if r.url.startswith((base, "data:")) else trouble.append(f"request to {r.url}")
        ),
    }
    for event, heard in listeners.items():
        page.on(event, heard)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(base + path, wait_until="load")
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_load_state("networkidle")
    found = page.evaluate(LOOK, width == WIDTHS[0])
    for event, heard in listeners.items():
        page.remove_listener(event, heard)
    trouble += [f"wider than the page: {what}" for what in found["wide"]]
    trouble += ["the page scrolls sideways"] if found["scrolls"] else []
    trouble += [f"no picture at {src}" for src in found["pictures"]]
    trouble += [f"not rendered: {text}" for text in found["formulas"]]
    trouble += [f"KaTeX can not read: {text}" for text in found["unread"]]
    return found | {"trouble": trouble}


def broken(pages: dict[str, dict], base: str, site: Path) -> Iterator[str]:
    """Links within the site whose page or anchor is not there."""
    for path, found in pages.items():
        for link in sorted(set(found["links"])):
            url, anchor = urldefrag(link)
            if not url.startswith(base):
                continue
            target = url.removeprefix(base)
            page = pages.get(target)
            if page is None and not (site / target).is_file():
                yield f"{path}: no page {link}"
            elif page is not None and anchor and anchor not in page["anchors"]:
                yield f"{path}: no anchor {link}"


def main() -> None:
    """Prints what is wrong; exit status 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="folder that `mkdocs build` made")
    site = parser.parse_args().site
    paths = sorted(
        str(p.relative_to(site)).removesuffix("index.html") for p in site.rglob("index.html")
    )
    if not paths:
        sys.exit(f"{site} has no page: mkdocs build --strict --site-dir {site}")
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    trouble, pages = [], {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox"],
        )
        page = browser.new_page()
        for width in WIDTHS:
            for path in paths:
                pages[path] = look(page, base, path, width)
                trouble += [f"/{path} at {width}: {what}" for what in pages[path]["trouble"]]
        browser.close()
    trouble += broken(pages, base, site)
    formulas = sum(found["rendered"] for found in pages.values())
    links = sum(len(set(found["links"])) for found in pages.values())
    print(*trouble, sep="\n")
    print(f"{len(pages)} pages, {links} links, {formulas} formulas: {len(trouble)} findings")
    sys.exit(bool(trouble))


if __name__ == "__main__":
    main()
