"""Opens every page of a built site in a browser without a network, and prints as JSON what it found.

    .venv-site/bin/python tests/site_browser.py build/site /usr/bin/chromium

Pages are opened from the disk. Run by test_site.py, in the site's own environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

AXE = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))
SERIOUS = """async only => {
  const rules = only ? {runOnly: [only]} : {};
  const found = await axe.run(document, {resultTypes: ["violations"], preload: false, ...rules});
  return found.violations.filter(one => ["serious", "critical"].includes(one.impact)).map(
    one => `${one.id}: ${one.nodes.slice(0, 3).map(node => node.target.join(" ")).join("; ")}`);
}"""
WIDE = """() => {
  const page = document.documentElement, found = [];
  if (page.scrollWidth > page.clientWidth) found.push(`the page is ${page.scrollWidth} wide`);
  return found;
}"""
MATHEMATICS = """() => [
  document.querySelectorAll(".math").length,
  [...document.querySelectorAll(".math")].filter(one => !one.querySelector("mjx-container svg")).length,
  document.querySelectorAll("mjx-merror, [data-mjx-error]").length]"""
PICTURE = """live => [...live.querySelectorAll("svg, canvas, img")].filter(one => one.getClientRects().length).map(
  one => one.tagName === "CANVAS" ? one.toDataURL() : one.src || one.outerHTML).join("|")"""
SET = "(one, value) => { one.value = value; one.dispatchEvent(new Event('input', {bubbles: true})); }"
PATIENCE = 180_000
"""Milliseconds for one page: other work may keep the processor busy."""
LIVE = ".live, .rg-live"


def pages(site: Path) -> list[str]:
    """Names of the pages of a site; listings of source code are one, since they are all made alike."""
    found = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    listings = [name for name in found if name.startswith("_modules/")]
    return [name for name in found if name not in listings and not name.startswith("_")] + listings[:1]


def look(page: Page, site: Path, name: str) -> dict[str, Any]:
    """Open a page at two widths in light and in dark, and return what is wrong with it."""
    said: list[str] = []

    def heard(message: Any) -> None:
        if message.type == "error":
            said.append(message.text)

    def lost(request: Any) -> None:
        said.append(f"failed: {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lost)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    found: dict[str, Any] = {"axe": {}, "wide": {}}
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto((site / name).as_uri(), wait_until="load")
    page.wait_for_function("() => !window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
    page.add_script_tag(path=AXE)
    found["axe"]["light"] = page.evaluate(SERIOUS)
    page.emulate_media(color_scheme="dark")  # the theme follows; nothing but colours changes
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    page.wait_for_function("() => document.getAnimations().every(one => one.playState === 'finished')")  # colours move
    found["axe"]["dark"] = page.evaluate(SERIOUS, "color-contrast")
    found["math"] = page.evaluate(MATHEMATICS)
    for width in (1200, 390):
        page.set_viewport_size({"width": width, "height": 900})
        found["wide"][str(width)] = page.evaluate(WIDE)
    found["live"] = list(alive(page))
    found["said"] = said
    found["asked"] = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    return found


def alive(page: Page) -> Iterator[dict[str, Any]]:
    """Move each slider of each interactive picture by keyboard and by mouse; yield whether its picture changed."""
    page.set_viewport_size({"width": 1200, "height": 900})
    for live in page.locator(LIVE).all():
        for slider in live.locator("input[type=range]").all():
            before, start = live.evaluate(PICTURE), slider.input_value()
            slider.scroll_into_view_if_needed()
            at_end = slider.evaluate("one => one.value === one.max")
            slider.press("ArrowLeft" if at_end else "ArrowRight")
            by_keyboard = live.evaluate(PICTURE)
            box = slider.bounding_box()
            assert box is not None
            low = slider.evaluate("one => (one.value - one.min) / (one.max - one.min) > 0.5")
            page.mouse.click(box["x"] + (0.02 if low else 0.98) * box["width"], box["y"] + box["height"] / 2)
            by_mouse = live.evaluate(PICTURE)
            slider.evaluate(SET, start)  # so that the next one is tried where it matters: without noise nothing spreads
            yield {"keyboard": by_keyboard != before, "mouse": by_mouse != by_keyboard}


def searched(page: Page, site: Path, word: str) -> list[str]:
    """Return the titles that the site's own search finds."""
    page.goto(f"{(site / 'search.html').as_uri()}?q={word}")
    page.wait_for_selector("#search-results ul.search li a", timeout=PATIENCE)
    return page.locator("#search-results ul.search li a").all_inner_texts()


def clicked(page: Page, site: Path, *texts: str) -> str:
    """Return the address, from the site's folder, where clicks on these links of the first page lead."""
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto((site / "index.html").as_uri())
    for text in texts:
        page.locator("main, header").get_by_role("link", name=text).first.click()
        page.wait_for_load_state()
    return page.url.removeprefix(f"{site.as_uri()}/")


def main(folder: str, browser: str, *only: str) -> None:
    """Print what was found on all pages, or on some."""
    site = Path(folder).resolve()
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = chromium.new_context(offline=True)
        found: dict[str, Any] = {"pages": {}}
        for name in only or pages(site):
            print(name, file=sys.stderr, flush=True)  # a progress for who watches
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            found["pages"][name] = look(page, site, name)
            page.close()
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        found["search"] = searched(page, site, "stiffness")
        found["paths"] = {
            "the idea": clicked(page, site, "Learn", "00 start here"),
            "the verdict": clicked(page, site, "the report"),
            "three lines": clicked(page, site, "Use"),
        }
        chromium.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
