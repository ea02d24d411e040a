"""Elements and quizzes in a real Chromium: every control moves its picture, by keyboard and by mouse, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, chromium, needs_browser
from live_samples import SMALL, small

from reproduce.live import quizzes
from reproduce.live.element import html

pytestmark = [needs_browser, pytest.mark.slow]
NAMES = sorted(SMALL)
QUIZ = quizzes.quiz("06")
HEAD = '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><meta name="viewport" '
HEAD += 'content="width=device-width"><title>x</title></head><body>'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """All elements, the first one twice, and one quiz twice: each comes with its own script, as outputs of cells do."""
    folder = tmp_path_factory.mktemp("browser")
    parts = [html(small(name)) for name in (*NAMES, NAMES[0])] + 2 * [quizzes.html(QUIZ)]
    (folder / "page.html").write_text(HEAD + "\n".join(parts) + "</body></html>", encoding="utf-8")
    with chromium(folder) as opened:
        opened.size(1200, 900)
        opened.open((folder / "page.html").as_uri())
        yield opened


def shown(page: Page, i: int) -> str:
    """Everything that an element shows: the paths of its panels and its sentence."""
    root = f"document.querySelectorAll('.rg-live')[{i}]"
    return page.ask(f"[...{root}.querySelectorAll('.moves > path')].map((p) => p.getAttribute('d')).join('|') + "
                    f"{root}.querySelector('.rg-text').textContent")  # fmt: skip


def control(i: int, k: int) -> str:
    return f"document.querySelectorAll('.rg-live')[{i}].querySelectorAll('input, select')[{k}]"


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_its_picture_by_keyboard_and_back(page: Page, name: str) -> None:
    i = NAMES.index(name)
    for k, about in enumerate(small(name).controls):
        page.ask(f"{control(i, k)}.focus()")
        before, last = shown(page, i), about.start == len(about.choices) - 1
        there, back = ("ArrowUp", "ArrowDown") if about.kind == "menu" else ("ArrowLeft", "ArrowRight")
        for key in (there, back) if last else (back, there):
            page.press(key)
            after = shown(page, i)
            assert (after == before) == (key == (back if last else there)), (about.label, key)


@pytest.mark.parametrize("name", NAMES)
def test_every_slider_changes_its_picture_by_mouse_and_says_its_value(page: Page, name: str) -> None:
    i = NAMES.index(name)
    for k, about in enumerate(small(name).controls):
        if about.kind == "slider":
            ends = [0, len(about.choices) - 1]
            for end in ends if about.start else ends[::-1]:
                before = shown(page, i)
                page.click(control(i, k), across=0.02 if end == 0 else 0.98)
                assert page.ask(f"{control(i, k)}.getAttribute('aria-valuetext')") == about.choices[end]
                assert shown(page, i) != before or about.start == end


def test_an_element_shown_twice_moves_alone(page: Page) -> None:
    twin = len(NAMES)
    before = shown(page, twin)
    page.ask(f"{control(0, 0)}.focus()")
    page.press("ArrowUp")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert shown(page, twin) == before
    page.ask(f"{control(twin, 0)}.focus()")
    mine = shown(page, 0)
    page.press("ArrowLeft")
    assert shown(page, twin) != before
    assert shown(page, 0) == mine


def test_pictures_and_sentences_are_read_aloud(page: Page) -> None:
    for i, name in enumerate(NAMES):
        root = f"document.querySelectorAll('.rg-live')[{i}]"
        assert page.ask(f"{root}.querySelector('.rg-panels').getAttribute('aria-label')").startswith(small(name).alt)
        assert page.ask(f"{root}.querySelector('[role=status]').textContent") != ""
        assert page.ask(f"{root}.querySelector('img') === null")


def form(i: int, k: int) -> str:
    return f"document.querySelectorAll('.rg-quiz')[{i}].querySelectorAll('form')[{k}]"


def test_a_wrong_answer_gets_its_explanation_and_a_right_one_too_by_keyboard_alone(page: Page) -> None:
    choices = QUIZ.questions[0].choices
    wrong, right = (next(j for j, c in enumerate(choices) if c.right == kind) for kind in (False, True))
    for i in (0, 1):  # both copies
        for j, verdict in ((wrong, "Not right."), (right, "Right.")):
            page.ask(f"{form(i, 0)}.querySelectorAll('input')[{j}].focus()")
            page.press(" ")
            page.press("Enter")
            said = page.ask(f"{form(i, 0)}.querySelector('[role=status]').textContent")
            assert said.startswith(verdict)
            assert choices[j].why in said
    assert page.ask(f"{form(0, 0)}.querySelectorAll('input:checked').length") == 1


def test_where_two_answers_are_right_one_of_them_is_not_all(page: Page) -> None:
    k = next(k for k, question in enumerate(QUIZ.questions) if question.right == 2)
    both = [j for j, choice in enumerate(QUIZ.questions[k].choices) if choice.right]
    for j, verdict in zip(both, ("Right so far, but not all.", "Right."), strict=True):
        page.click(f"{form(0, k)}.querySelectorAll('input')[{j}]")
        page.click(f"{form(0, k)}.querySelector('button')")
        assert page.ask(f"{form(0, k)}.querySelector('[role=status]').textContent").startswith(verdict)
    assert "2 answers are right" in page.ask(f"{form(0, k)}.querySelector('legend').textContent")


def test_nothing_is_wider_than_a_phone_and_dark_pages_get_a_dark_element(page: Page) -> None:
    page.size(390, 800)
    assert page.ask("document.documentElement.scrollWidth") <= 390
    page.size(1200, 900)
    paper = "getComputedStyle(document.querySelector('.rg-live')).backgroundColor"
    stroke = "getComputedStyle(document.querySelector('.rg-live .moves .line')).stroke"
    light = page.ask(paper), page.ask(stroke)
    page.ask("document.documentElement.dataset.theme = 'dark'")
    assert (page.ask(paper), page.ask(stroke)) != light
    page.ask("document.documentElement.dataset.theme = 'light'")
    assert (page.ask(paper), page.ask(stroke)) == light


def test_without_scripts_the_first_picture_and_folded_answers_stand_there(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(HEAD + html(small("one_step")) + quizzes.html(QUIZ), encoding="utf-8")
    with chromium(tmp_path) as page:
        page("Emulation.setScriptExecutionDisabled", value=True)
        page.open((tmp_path / "page.html").as_uri())
        assert page.ask("document.querySelector('.rg-live img').naturalWidth") > 700
        assert page.ask("document.querySelectorAll('.rg-live input').length") == 0
        assert page.ask("document.querySelectorAll('.rg-quiz details').length") == len(QUIZ.questions)


def test_no_error_was_heard_and_nothing_was_asked_of_the_network(page: Page) -> None:
    page.ask("1")
    assert page.heard == []
    assert page.asked == []
