"""Outputs of lessons that git tracks: as the run left them, without the pictures that figures/ holds already."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import nbformat
import pytest

from reproduce import checkout
from reproduce.notebooks.runner import source_notebooks
from reproduce.site import kept, stage
from reproduce.site.lessons import WIDGET, prepared

MADE = {"profile": "quick", "commit": "a" * 40, "dirty": False, "made": "2026-11-29T08:00:00Z"}


def shown(content: bytes) -> Any:
    image = f'<figure><img src="data:image/png;base64,{b64encode(content).decode()}" alt="a"></figure>'
    return nbformat.v4.new_output("display_data", {"text/html": image, "text/plain": "a"})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with one lesson, executed in quick: a published picture, one of no file, progress and a number."""
    cells = [
        nbformat.v4.new_markdown_cell("# 07 · A title"),
        *(nbformat.v4.new_code_cell(text, id=text) for text in ("published", "own", "number")),
    ]
    master = nbformat.v4.new_notebook(cells=cells)
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("profile = 'quick'"), *cells])
    executed.metadata["regnde"] = MADE
    for folder in ("notebooks", "figures", "build/quick/notebooks", kept.FOLDER):
        (tmp_path / folder).mkdir(parents=True)
    nbformat.write(master, tmp_path / "notebooks" / "07_lesson.ipynb")
    progress = nbformat.v4.new_output("stream", name="stderr", text="50 %")
    widget = nbformat.v4.new_output("display_data", {WIDGET: {}, "text/plain": "a slider"})
    cells[1].outputs, cells[2].outputs = [progress, shown(b"published")], [widget, shown(b"own")]
    cells[3].outputs = [nbformat.v4.new_output("stream", name="stdout", text="12 steps\n")]
    nbformat.write(executed, tmp_path / "build" / "quick" / "notebooks" / "07_lesson.ipynb")
    (tmp_path / "figures" / "07_picture.png").write_bytes(b"published")
    return tmp_path


def lesson(bundle: Path) -> Any:
    return kept.with_outputs(bundle / "notebooks" / "07_lesson.ipynb", root=bundle)


def test_kept_outputs_are_those_of_the_run_without_what_the_site_does_not_show(bundle: Path) -> None:
    (bundle / kept.FOLDER / "03_gone.json").write_text("{}")
    assert kept.keep("quick", root=bundle) == f"outputs of 1 lessons kept in {kept.FOLDER}"
    found = lesson(bundle)
    outputs = [cell.outputs for cell in found.cells[1:]]
    assert outputs == [[shown(b"published")], [shown(b"own")], [found.cells[3].outputs[0]]]
    assert found.cells[3].outputs[0].text == "12 steps\n"
    assert found.metadata["regnde"] == {**MADE, "changed": 0}
    assert "profile quick at commit aaaaaaa, 2026-11-29.*" in prepared("07_lesson", found).notebook.cells[-1].source
    assert [path.name for path in (bundle / kept.FOLDER).iterdir()] == ["07_lesson.json"]


def test_a_published_picture_is_kept_by_its_name_alone(bundle: Path) -> None:
    kept.keep("quick", root=bundle)
    text = (bundle / kept.FOLDER / "07_lesson.json").read_text()
    assert "figures/07_picture.png" in text
    assert b64encode(b"published").decode() not in text
    assert b64encode(b"own").decode() in text
    (bundle / "figures" / "07_picture.png").unlink()
    with pytest.raises(ValueError, match=r"shows figures/07_picture.png, which is not there"):
        lesson(bundle)


@pytest.mark.parametrize("when", ["after keeping", "between execution and keeping"])
def test_a_cell_that_was_changed_since_shows_no_output_and_the_page_says_so(bundle: Path, when: str) -> None:
    kept.keep("quick", root=bundle)
    path = bundle / "notebooks" / "07_lesson.ipynb"
    master = nbformat.read(path, as_version=4)
    master.cells[3].source = "another number"
    nbformat.write(master, path)
    if when == "between execution and keeping":
        kept.keep("quick", root=bundle)
    found = lesson(bundle)
    assert [len(cell.outputs) for cell in found.cells[1:]] == [1, 1, 0]
    end = prepared("07_lesson", found).notebook.cells[-1].source
    assert "Cells that have changed since, and show no output: 1." in end


def test_nothing_is_kept_of_another_profile_of_changes_that_were_not_committed_or_of_a_run_without_an_end(
    bundle: Path,
) -> None:
    assert kept.keep("paper", root=bundle) == "no outputs of lessons kept"
    path = bundle / "build" / "quick" / "notebooks" / "07_lesson.ipynb"
    unfinished = nbformat.read(path, as_version=4)
    unfinished.metadata["regnde"] = {**MADE, "dirty": True}
    nbformat.write(unfinished, path)
    assert "of 0 lessons kept" in (said := kept.keep("quick", root=bundle))
    assert said.endswith("; not those of 1 executed with changes that were not committed")
    del unfinished.metadata["regnde"]
    nbformat.write(unfinished, path)
    assert kept.keep("quick", root=bundle) == f"outputs of 0 lessons kept in {kept.FOLDER}"
    with pytest.raises(ValueError, match=r"no outputs of 07_lesson are kept; `make reproduce PROFILE=quick KEEP=1`"):
        lesson(bundle)


def test_a_lesson_without_kept_outputs_is_named_and_shown_without_them(bundle: Path) -> None:
    master = bundle / "notebooks" / "07_lesson.ipynb"
    assert kept.without_outputs(bundle) == [master]
    [notebook] = stage._executed(None, "", bundle).values()
    assert "was not executed for this site" in prepared("07_lesson", notebook).notebook.cells[-1].source
    kept.keep("quick", root=bundle)
    assert kept.without_outputs(bundle) == []
    [notebook] = stage._executed(None, "", bundle).values()
    assert notebook == lesson(bundle)


@pytest.mark.parametrize("path", sorted((checkout.ROOT / kept.FOLDER).glob("*.json")), ids=lambda path: path.stem)
def test_what_git_tracks_can_be_shown_and_comes_from_a_clean_tree(path: Path) -> None:
    [master] = [one for one in source_notebooks(checkout.ROOT / "notebooks") if one.stem == path.stem]
    notebook = kept.with_outputs(master)
    assert prepared(path.stem, notebook).pictures
    assert json.loads(path.read_text(encoding="utf-8"))["made"]["dirty"] is False
