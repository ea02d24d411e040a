"""Slides: everything on them comes from the masters or is short; minutes add up; no result is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from test_prose import typed

from reproduce import checkout
from reproduce.slides.deck import picture, published_table, read

DECKS = sorted((checkout.ROOT / "course" / "slides").glob("*.yaml"))
MINUTES = {"idea": 20, "solvers": 90, "experiments": 90}


@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_a_deck_finds_its_cells_and_pictures_and_lasts_as_long_as_it_says(path: Path) -> None:
    deck = read(path, checkout.ROOT)
    assert deck.minutes == MINUTES[deck.name]
    assert all(slide.notes for slide in deck.slides if slide.code or slide.figure or slide.text)


@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_no_result_is_typed_onto_a_slide(path: Path) -> None:
    slides = yaml.safe_load(path.read_text(encoding="utf-8"))["slides"]
    texts = [text for slide in slides for text in (slide["title"], slide.get("say", ""), *slide.get("points", ()))]
    assert [hit for text in texts for hit in typed(text)] == []


def test_every_picture_of_a_deck_has_a_text_for_those_who_do_not_see_it() -> None:
    figures = {slide.figure for path in DECKS for slide in read(path, checkout.ROOT).slides if slide.figure}
    assert figures
    for figure in figures:
        file, said = picture(checkout.ROOT, figure, "")
        assert file.is_file()
        assert said["alt"]


def test_the_table_is_the_generated_one() -> None:
    lines = published_table(checkout.ROOT).splitlines()
    assert lines[0].startswith("| experiment |")
    assert len(lines) > 2


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"colour": "red"}, "unknown colour"),
        ({"figure": "99_none"}, "no figures/99_none.json"),
        ({"code": "01_one_step/nowhere"}, "has no cell 'nowhere'"),
        ({"minutes": 3}, "take 3 minutes"),
    ],
)
def test_a_wrong_deck_is_refused_with_what_is_wrong(tmp_path: Path, entry: dict[str, object], said: str) -> None:
    slide = {"title": "A slide", "minutes": 5} | entry
    deck = {"title": "A deck", "subtitle": "none", "minutes": 5, "slides": [slide]}
    path = tmp_path / "deck.yaml"
    path.write_text(yaml.safe_dump(deck))
    with pytest.raises(ValueError, match=said):
        read(path, checkout.ROOT)
