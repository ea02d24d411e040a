"""The site: staged from pages and executed lessons; complete, linked and alive in a browser without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pytest

from reproduce import checkout, pdf
from reproduce.report import front
from reproduce.report.captions import numbered
from reproduce.site import launch
from reproduce.site import stage as staging
from reproduce.site.lessons import WIDGET, prepared
from reproduce.site.links import relinked

SITE, PYTHON = checkout.ROOT / "build" / "site", checkout.ROOT / ".venv-site" / "bin" / "python"
BROWSER = pdf.browser()
PAGES = {"docs/use.md": "use.md", "notebooks/01_one.ipynb": "lessons/01_one.ipynb", "README.md": "index.md"}


# Links


@pytest.mark.parametrize(
    ("origin", "text", "expected"),
    [
        ("docs/use.md", "[one](../notebooks/01_one.ipynb)", "[one](lessons/01_one.ipynb)"),
        ("notebooks/01_one.ipynb", "[how](../docs/use.md#weight)", "[how](../use.md#weight)"),
        ("README.md", "![a](docs/a.png)", "![a](files/docs/a.png)"),
        ("docs/use.md", ":::{figure} a.png\n", ":::{figure} files/docs/a.png\n"),
        (
            "docs/use.md",
            "[web](https://example.org/a.png), [here](#top)",
            "[web](https://example.org/a.png), [here](#top)",
        ),
        ("docs/use.md", "`[code](a.png)`", "`[code](a.png)`"),
    ],
)
def test_a_link_leads_to_the_same_thing_on_the_site(tmp_path: Path, origin: str, text: str, expected: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.png").touch()
    wanted: set[str] = set()
    found = relinked(text, origin=origin, page=PAGES[origin], pages=PAGES, root=tmp_path, wanted=wanted)
    assert found == expected
    assert wanted == ({"docs/a.png"} if "files/" in expected else set())


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"README.md: the link to 'gone.md' leads nowhere"):
        relinked("[a](gone.md)", origin="README.md", page="index.md", pages=PAGES, root=tmp_path, wanted=set())


# Links that open a lesson elsewhere


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://github.com/ada/bundle.git", "ada/bundle"),
        ("git@github.com:ada/my.bundle.git", "ada/my.bundle"),
        ("https://github.com/ada/bundle/", "ada/bundle"),
        ("/somewhere/bundle", None),
        ("https://example.org/ada/bundle", None),
        (None, None),
    ],
)
def test_the_repository_is_that_of_the_workflow_or_of_the_remote(
    tmp_path: Path, remote: str | None, expected: str | None
) -> None:
    assert launch.repository(tmp_path, {}) is None, "no repository at all"
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if remote:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    assert launch.repository(tmp_path, {}) == expected
    assert launch.repository(tmp_path, {"GITHUB_REPOSITORY": "ben/other"}) == "ben/other"
    with pytest.raises(ValueError, match="expected owner/name, found 'ben'"):
        launch.repository(tmp_path, {"GITHUB_REPOSITORY": "ben"})


def test_a_lesson_has_badges_below_its_title_where_the_address_is_known() -> None:
    source = "# 07 · A title\n\nText."
    assert launch.headed(source, "07_lesson", None) == source
    title, badges, rest = launch.headed(source, "07_lesson", "ada/bundle").split("\n\n")
    assert (title, rest) == ("# 07 · A title", "Text.")
    for address in (
        "https://mybinder.org/v2/gh/ada/bundle/HEAD?urlpath=lab/tree/my_lessons/07_lesson.ipynb",
        "https://colab.research.google.com/github/ada/bundle/blob/HEAD/notebooks/07_lesson.ipynb",
        "https://codespaces.new/ada/bundle",
    ):
        assert f"<{address}>`" in badges


def test_pages_have_the_address_and_a_link_to_each_lesson_where_it_is_known() -> None:
    page = (checkout.ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
    known = launch.filled(page, ["01_one", "02_two"], "ada/bundle")
    assert "git clone --depth 1 https://github.com/ada/bundle bundle" in known
    assert known.count("mybinder.org/v2/gh/ada/bundle") == 2
    unknown = launch.filled(page, ["01_one", "02_two"], None)
    assert "ADDRESS" in unknown
    assert "mybinder.org/v2" not in unknown


def test_binder_makes_the_copies_that_its_badge_opens() -> None:
    made = (checkout.ROOT / ".binder" / "postBuild").read_text(encoding="utf-8")
    assert "reproduce.cli lab" in made


# Lessons


def executed(*outputs: Any) -> Any:
    cell = nbformat.v4.new_code_cell("x", outputs=list(outputs))
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 07 · A title"), cell])


def figure(caption: str = "A caption.") -> Any:
    image = f'<img src="data:image/png;base64,{b64encode(b"png").decode()}" alt="a">'
    html = f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    return nbformat.v4.new_output("display_data", {"text/html": html, "text/plain": "a"})


def test_pictures_of_a_lesson_become_files_and_have_numbers_and_the_notebook_stays_as_it_was() -> None:
    notebook = executed(figure(), figure("Another."))
    before = nbformat.writes(notebook)
    lesson = prepared("07_lesson", notebook)
    first, second = (output.data["text/html"] for output in lesson.notebook.cells[1].outputs)
    assert 'src="pictures/07_lesson-1.png"' in first
    assert "<figcaption><b>Figure 7.1.</b> A caption." in first
    assert "<b>Figure 7.2.</b> Another." in second
    assert lesson.pictures == {"07_lesson-1.png": b"png", "07_lesson-2.png": b"png"}
    assert nbformat.writes(notebook) == before


def test_a_figure_is_numbered_once() -> None:
    table = nbformat.v4.new_output("display_data", {"text/markdown": "| a |\n| --- |\n| 1 |\n"})
    once = numbered(executed(figure(), table))
    assert numbered(once) == once


def test_tables_have_a_number_and_the_heading_above_them_or_the_words_of_their_cell() -> None:
    of_pandas = nbformat.v4.new_output("execute_result", {"text/html": '<table border="1"><tr></tr></table>'})
    text = "Some words.\n\n| a |\n| --- |\n| 1 |\n\n### Own heading\n\n| b |\n| --- |\n| 2 |\n"
    notebook = executed(of_pandas, nbformat.v4.new_output("display_data", {"text/markdown": text}))
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell("## 3 · What it costs\n\nText."))
    first, second = (output.data for output in numbered(notebook).cells[2].outputs)
    assert '<table border="1"><caption><b>Table 7.1.</b> What it costs.</caption>' in first["text/html"]
    assert "**Table 7.2.** What it costs.\n\n| a |" in second["text/markdown"]
    assert "**Table 7.3.** Own heading.\n\n| b |" in second["text/markdown"]
    shown = prepared("07_lesson", notebook).notebook.cells[2].outputs[1].data["text/markdown"]
    assert ":::{table} **Table 7.2.** What it costs.\n\n| a |\n| --- |\n| 1 |\n\n:::" in shown
    notebook.cells[2].metadata["caption"] = "Evaluations and error"
    assert "Table 7.1.</b> Evaluations and error." in numbered(notebook).cells[2].outputs[0].data["text/html"]


def test_progress_and_widgets_are_not_shown() -> None:
    progress = nbformat.v4.new_output("stream", name="stderr", text="50 %")
    widget = nbformat.v4.new_output("display_data", {WIDGET: {}, "text/plain": "a slider"})
    said = nbformat.v4.new_output("stream", name="stdout", text="12 steps")
    assert prepared("07_lesson", executed(progress, widget, said)).notebook.cells[1].outputs == [said]


def test_a_picture_without_text_in_its_place_is_refused() -> None:
    bare = nbformat.v4.new_output("display_data", {"image/png": "AAAA"})
    with pytest.raises(ValueError, match=r"a picture has no text in its place; show it by plots.save"):
        prepared("07_lesson", executed(bare))


def test_lessons_that_were_not_executed_are_named_and_an_earlier_site_stays(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "07_lesson.ipynb").touch()
    (tmp_path / "build" / "site").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"these were not executed: 07_lesson; run `make reproduce PROFILE=smoke`"):
        staging.stage("smoke", root=tmp_path)
    assert (tmp_path / "build" / "site").is_dir()


def test_a_page_may_hold_a_section_of_the_readme_or_its_generated_block() -> None:
    readme = f"# Title\n\n## Commands\n\nmake\n\n## Rest\n\n{front.BEGIN}\nresults\n{front.END}\n"
    assert staging._of_readme(readme, "Commands").strip() == "make"
    assert staging._of_readme(readme, "results") == "results"
    with pytest.raises(ValueError, match=r"wants 'Doors' of README.md, which has no such section"):
        staging._of_readme(readme, "Doors")


# The built site


class Links(HTMLParser):
    """Addresses and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.to: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        self.to += [address for address in (given.get("href"), given.get("src")) if address]


@pytest.fixture(scope="module")
def built() -> dict[str, Links]:
    if not (SITE / "index.html").exists():
        pytest.skip("no site is built here: `make site` makes one from executed notebooks")
    files = [path for path in SITE.rglob("*.html") if path.relative_to(SITE).parts[0] != "_static"]  # the theme's parts
    return {path.relative_to(SITE).as_posix(): Links(path.read_text(encoding="utf-8")) for path in files}


def test_every_link_and_anchor_inside_of_the_site_leads_somewhere(built: dict[str, Links]) -> None:
    lost = []
    for name, page in built.items():
        for address in (address for address in page.to if not re.match(r"[a-z]+:", address)):
            path, _, anchor = unquote(address).partition("#")
            path = path.partition("?")[0]
            target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            is_there = (SITE / target).exists() and (target not in built or anchor in {"", *built[target].ids})
            lost += [] if is_there else [f"{name}: {address}"]
    assert lost == []


def test_no_page_loads_anything_from_elsewhere(built: dict[str, Links]) -> None:
    loads = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    found = {name: loads.findall((SITE / name).read_text(encoding="utf-8")) for name in built}
    assert {name: tags for name, tags in found.items() if tags} == {}


@pytest.fixture(scope="module")
def seen(built: dict[str, Links]) -> dict[str, Any]:
    if BROWSER is None:
        pytest.skip("no Chromium is on this machine, so that pages are not opened")
    if not PYTHON.exists():
        pytest.skip("there is no .venv-site, which holds what drives the browser: `make site` makes it")
    command = [str(PYTHON), str(checkout.ROOT / "tests" / "site_browser.py"), str(SITE), BROWSER]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def wrong(seen: dict[str, Any], what: str) -> dict[str, Any]:
    """Pages with something wrong of a kind; of nested findings the parts that are not empty."""
    found = {name: page[what] for name, page in seen["pages"].items()}
    return {
        name: one for name, one in found.items() if (any(one.values()) if isinstance(one, dict) else one)
    }  # fmt: skip


@pytest.mark.slow
def test_every_page_loads_without_a_network_a_failed_request_or_an_error(seen: dict[str, Any]) -> None:
    assert wrong(seen, "said") == {}
    assert wrong(seen, "asked") == {}


@pytest.mark.slow
def test_no_page_has_a_serious_fault_of_accessibility_in_light_or_dark(seen: dict[str, Any]) -> None:
    assert wrong(seen, "axe") == {}


@pytest.mark.slow
def test_no_page_is_wider_than_a_desk_or_a_phone(seen: dict[str, Any]) -> None:
    assert wrong(seen, "wide") == {}


@pytest.mark.slow
def test_mathematics_is_rendered(seen: dict[str, Any]) -> None:
    counts = {name: page["math"] for name, page in seen["pages"].items()}
    assert any(there for there, _, _ in counts.values())
    assert {name: found for name, found in counts.items() if found[1] or found[2]} == {}


@pytest.mark.slow
def test_search_finds_stiffness(seen: dict[str, Any]) -> None:
    assert any("Adaptive solvers" in title or "words" in title for title in seen["search"])


@pytest.mark.slow
def test_each_slider_changes_its_picture_by_keyboard_and_by_mouse(seen: dict[str, Any]) -> None:
    moved = [slider for page in seen["pages"].values() for slider in page["live"]]
    if not moved:
        pytest.skip("no page has an interactive picture")
    assert [slider for slider in moved if not all(slider.values())] == []


@pytest.mark.slow
def test_idea_verdict_and_three_lines_are_within_two_clicks_of_the_first_page(seen: dict[str, Any]) -> None:
    assert seen["paths"]["the idea"] == "lessons/00_start_here.html"
    assert seen["paths"]["the verdict"] == "lessons/13_report.html"
    assert seen["paths"]["three lines"] == "use.html"
