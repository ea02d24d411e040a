"""Interactive elements: their marks are the numbers of solver and rows; their pages stand alone."""

from __future__ import annotations

import json
import re
import statistics
import xml.etree.ElementTree as ET
from base64 import b64decode
from dataclasses import replace

import nbformat
import numpy as np
import pytest
import torch
from live_samples import SMALL, latent_model, small, stay

from regnde import BOSH3, BrownianPath, rk_step, solve_ode
from reproduce import checkout, live
from reproduce.data.spiral import cubic_field, load_spiral
from reproduce.live import of_noise, of_study, picture
from reproduce.live.assets import asset
from reproduce.live.element import LARGEST, Element, html
from reproduce.live.parts import Axis, Control, Panel, Series, around, each, power, staircase
from reproduce.models.fields import TimeMLP
from reproduce.report import ladders
from reproduce.report.page import page
from reproduce.runs.curves import curve
from reproduce.runs.memory import Memory

EVERY = sorted(SMALL)


def index_of(element: Element, **chosen: str) -> tuple[int, ...]:
    """The index of choices in words; what is not named is at its start."""
    return tuple(c.choices.index(chosen[c.name]) if c.name in chosen else c.start for c in element.controls)


def test_the_marks_of_one_step_are_its_end_its_error_and_its_estimate() -> None:
    element = small("one_step")
    at = index_of(element, method="bosh3", size="1.5")
    y0 = torch.tensor([0.3], dtype=torch.float64)
    step = rk_step(lambda t, y: y * (1 - y), 0.0, y0, 1.5, BOSH3)
    exact = 1 / (1 + (1 / 0.3 - 1) * np.exp(-1.5))
    end, error, estimate = element.frame(0, at)[3], *element.frame(1, at)[2:]
    assert [end.x[1], end.y[1]] == pytest.approx([1.5, step.y1.item()], abs=1e-12)
    assert error.y[0] == pytest.approx(abs(step.y1.item() - exact), rel=1e-6)
    assert estimate.y[0] == pytest.approx(step.error.abs().item(), rel=1e-12)
    assert f"the truth is {exact:.4f}" in element.texts[at]


def test_euler_has_no_estimate_and_the_sentence_says_so() -> None:
    element = small("one_step")
    at = index_of(element, method="euler")
    assert np.isnan(element.frame(1, at)[3].y[0])
    assert "it has no estimate" in element.texts[at]


def test_a_field_of_the_readers_own_gets_its_own_step() -> None:
    element = live.one_step(lambda t, y: -2 * y, 1.0, sizes=(0.1, 0.2), methods=("euler", "rk4"))
    assert element.frame(0, index_of(element, method="euler", size="0.2"))[3].y[1] == pytest.approx(0.6)


@pytest.mark.parametrize("method", ["tsit5", "bosh3"])
def test_each_accepted_step_and_each_rejection_of_the_solve_has_its_mark(method: str) -> None:
    element, spiral = small("tolerances"), load_spiral(n_times=801, t1=25.0)
    at = index_of(element, method=method, tolerance="1e-3")
    run = solve_ode(spiral.f, spiral.y0, spiral.t, rtol=1e-3, atol=1e-3, method=method)
    accepted, rejected = element.frame(1, at)
    assert np.allclose(accepted.y, run.trace.dt)
    assert len(rejected.y) == run.trace.rejected
    assert f"{run.trace.nfe} evaluations" in element.texts[at]
    error = (run.y - spiral.y).abs().max().item()
    assert f"true error {error:.0e}." in element.texts[at]


def test_densities_of_draws_have_the_area_one_and_biased_draws_go_where_steps_are_short() -> None:
    element = small("draws")
    at = index_of(element, tolerance="1e-4", number="1,000")
    unbiased, level, biased, expected = element.frame(1, at)
    for series in (unbiased, level, biased, expected):
        assert np.trapezoid(series.y, series.x) == pytest.approx(1, abs=1e-9)
    assert np.asarray(expected.y)[0] > 3 * np.asarray(expected.y)[-1]
    spiral = load_spiral(n_times=2, t1=25.0)
    trace = solve_ode(spiral.f, spiral.y0, spiral.t, rtol=1e-4, atol=1e-4).trace
    share = (trace.t < 5).double().mean().item()
    error = (share * (1 - share) / 1000) ** 0.5
    told = int(re.search(r"biased (\d+)%\.", element.texts[at])[1]) / 100
    assert abs(told - share) < 3 * error + 0.005


def test_the_mark_of_a_weight_is_the_mean_of_its_rows() -> None:
    name = live.measured()[0]
    element, ladder, (vanilla, _) = live.weights(name), ladders.weights(name), ladders.references(name)
    for i, line in enumerate(ladder):
        for k, (weight, rows) in enumerate(ladder[line].items()):
            mark = element.frame(0, (i, k))[0]
            assert (mark.x[0], mark.y[0]) == (weight, statistics.fmean(row.nfe for row in rows))
    assert element.panels[0].stays[0].y[0] == statistics.fmean(row.nfe for row in vanilla)
    assert all(row.part == "validation" for rungs in ladder.values() for rows in rungs.values() for row in rows)


def test_the_mark_of_a_tolerance_is_what_the_rows_measured_and_the_caption_says_which_rows() -> None:
    name = live.measured()[0]
    element, (lines, source) = live.ways(name), of_study._solved(name)
    at = element.start
    method, tolerance = (c.choices[i] for c, i in zip(element.controls, at, strict=True))
    for j, line in enumerate(line for line in lines if line != "no_dynamics"):
        curves = [curve(row)[method, float(tolerance), None] for row in lines[line]]
        assert element.frame(0, at)[2 * j + 1].y[0] == pytest.approx(statistics.fmean(nfe for _, nfe in curves))
    assert element.caption.startswith(source)
    assert element.frame(1, at)[1].y[0] == pytest.approx(1.0, abs=0.05)  # vanilla, as it was trained, keeps itself


def test_lines_of_different_seeds_are_not_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_study.store.committed_rows
    monkeypatch.setattr(
        of_study.store,
        "committed_rows",
        lambda stage, name: [row for row in whole(stage, name) if (row.regularizer, row.seed) != ("local_biased", 19)],
    )
    assert "ladders" in of_study._solved("mnist_ode")[1]
    monkeypatch.undo()
    assert "study" in of_study._solved("mnist_ode")[1]


def test_a_ladder_that_lacks_a_seed_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ladders.store.committed_rows
    assert {"digits_cnf", "mnist_ode"} < set(live.measured())
    monkeypatch.setattr(
        ladders.store,
        "committed_rows",
        lambda stage, name: [
            row for row in whole(stage, name) if (stage, name, row.seed) != ("ladders", "digits_cnf", 2)
        ],
    )
    assert "digits_cnf" not in live.measured()
    assert "mnist_ode" in live.measured()


def test_the_first_mark_of_a_ladder_is_at_the_weight_that_was_chosen() -> None:
    for name in live.measured():
        element, weight = live.weights(name), ladders.chosen_weight(name, "local_biased")
        assert element.frame(0, element.start)[0].x[0] == weight


def test_an_experiment_without_rows_is_refused_with_those_that_have_some() -> None:
    for make in (live.weights, live.ways):
        with pytest.raises(ValueError, match=live.measured()[0]):
            make("spirals")


def test_a_kept_path_holds_every_attempt_and_new_noise_does_not() -> None:
    for kind, fits in ((of_noise._Asked, True), (of_noise._Forgetful, False)):
        solved, bm = of_noise.solve_noisy(kind, 0, tolerance=0.03)
        path = BrownianPath(torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0, seed=0)
        taken, lost = of_noise._attempts(bm)
        true = [path(0.0, t).item() if t else 0.0 for t, _ in [*taken, *lost]]
        assert np.allclose(true, [w for _, w in [*taken, *lost]]) == fits
        assert (len(taken), len(lost)) == (solved.trace.accepted + 1, solved.trace.rejected)
        assert len(lost) > 0


def test_trajectories_without_noise_are_the_solution_of_the_drift() -> None:
    element = small("trajectories")
    mean = element.frame(0, index_of(element, noise="0"))[2]
    t = torch.tensor(mean.x)
    exact = solve_ode(cubic_field, torch.tensor([2.0, 0.0], dtype=torch.float64), t, rtol=1e-9, atol=1e-9).y[:, 0]
    assert np.allclose(mean.y, exact, atol=0.05)


def test_the_drawn_mean_and_band_are_those_of_as_many_trajectories_as_asked() -> None:
    element = live.trajectories(noises=(0.3, 0.4), numbers=(4, 6), shown=4)
    area, thin, mean = element.frame(1, (0, 0))
    lines = np.asarray(thin.y).reshape(4, -1)[:, :-1]  # a gap ends each
    assert np.allclose(lines.mean(0), mean.y)
    assert np.allclose(np.asarray(area.y)[: len(mean.y)], lines.mean(0) - 2 * lines.std(0))


def test_memory_is_what_the_scale_reads_and_checkpoints_add_one_state_for_each_step() -> None:
    torch.manual_seed(0)
    f, y0 = TimeMLP((32, 8, 32)), torch.rand(8, 32)
    element = live.memory(f, y0, steps=(4, 12))
    peaks = {m: [element.frame(1, index_of(element, method=m, steps=n))[0].y[0] for n in ("4", "12")]
             for m in ("backprop", "checkpoint", "adjoint")}  # fmt: skip
    with Memory() as memory:
        y = solve_ode(f, y0, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1, atol=1, step_sizes=[0.25] * 4).y[-1]
        torch.autograd.grad(y.square().mean(), list(f.parameters()))
    assert peaks["backprop"][0] == pytest.approx(memory.peak / y0.nbytes)
    assert (peaks["checkpoint"][1] - peaks["checkpoint"][0]) / 8 == pytest.approx(1, abs=0.25)
    assert peaks["backprop"][1] - peaks["backprop"][0] > 6 * 8
    assert abs(peaks["adjoint"][1] - peaks["adjoint"][0]) < 1


def test_what_came_after_the_hour_is_hidden_from_the_model() -> None:
    element, (values, mask, t) = small("latent_paths"), stay()
    early = index_of(element, read="12", variable="second")
    _, mean, read, later = element.frame(1, early)
    seen = (mask[:, 1] > 0).numpy()
    assert (len(read.x), len(later.x)) == (
        int((seen & (t.numpy() <= 0.25)).sum()),
        int((seen & (t.numpy() > 0.25)).sum()),
    )
    changed = values.clone()
    changed[t > 0.25] += 0.3 * mask[t > 0.25]
    known = mask * (t <= 0.25)[:, None]
    model = latent_model().eval()
    with torch.no_grad():
        states = [model.encode((x * known)[None], known[None], t)[0] for x in (values, changed)]
    assert torch.equal(*states)
    assert len(mean.y) == len(t)


@pytest.mark.parametrize("name", EVERY)
def test_an_element_stands_as_one_picture_with_alt_text_where_no_script_runs(name: str) -> None:
    element = small(name)
    content = html(element)
    without = re.sub(r"<(script|style)\b.*?</\1>", "", content, flags=re.DOTALL)
    (image,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', without)
    assert ET.fromstring(b64decode(image[0])).tag.endswith("svg")
    assert "Left:" in element.alt or "over time" in element.alt
    assert "Shown:" in element.alt
    assert element.texts[element.start] in without.replace("&#x27;", "'")
    assert element._repr_mimebundle_()["text/plain"].endswith(element.alt)


@pytest.mark.parametrize("name", EVERY)
def test_an_element_brings_no_id_that_could_collide_and_loads_nothing(name: str) -> None:
    content = html(small(name))
    assert not re.search(r'\sid=|\sfor=|url\(|@import|\bhref=|src="(?!data:)', content)
    assert content.count("</script>") == 2  # none inside the data


@pytest.mark.parametrize("name", EVERY)
def test_the_data_of_a_page_hold_a_frame_and_a_sentence_for_every_choice(name: str) -> None:
    element = small(name)
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', html(element), re.DOTALL)[1])
    sizes = [len(control["choices"]) for control in data["controls"]]
    assert len(data["texts"]) == np.prod(sizes)
    for panel in data["panels"]:
        assert len(panel["frames"]) == np.prod([sizes[i] for i in panel["by"]])
    assert data["texts"][int(np.ravel_multi_index(element.start, sizes))] == element.texts[element.start]


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_some_panel_and_the_sentence(name: str) -> None:
    element = small(name)
    for i, control in enumerate(element.controls):
        other = list(element.start)
        other[i] = (other[i] + 1) % len(control.choices)
        frames = [picture.paths(panel, tuple(at[[c.name for c in element.controls].index(n)] for n in panel.by))
                  for at in (element.start, tuple(other)) for panel in element.panels]  # fmt: skip
        half = len(frames) // 2
        assert frames[:half] != frames[half:], control.label


def luminance(color: str, mix: float) -> float:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255 * (1 - mix) + mix
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_marks_and_text_have_contrast_on_both_themes() -> None:
    css = asset("live.css")
    papers, inks, faints = (re.findall(rf"--{name}: (#\w+);", css) for name in ("paper", "ink", "faint"))
    mixes = [int(found) / 100 for found in re.findall(r"--mix: (\d+)%", css)]
    colors = {series.color for name in EVERY for panel in small(name).panels
              for series in (*panel.stays, *next(iter(panel.frames.values()))) if series.kind != "area"}  # fmt: skip
    for paper, ink, faint, mix in zip(
        (f"{p}{p[1:]}" if len(p) == 4 else p for p in papers), inks, faints, mixes, strict=True
    ):
        behind = luminance(paper, 0.0)

        def contrast(color: str, mix: float, behind: float = behind) -> float:
            bright, dark = sorted((luminance(color, mix), behind), reverse=True)
            return (bright + 0.05) / (dark + 0.05)

        assert {color for color in colors if contrast(color, mix) < 3} == set()
        assert contrast(ink, 0.0) > 7
        assert contrast(faint, 0.0) > 4.5


def test_a_point_lies_where_its_axes_say_and_a_gap_breaks_a_line() -> None:
    panel = Panel(Axis("x", 0.0, 10.0), Axis("y", 1.0, 100.0, log=True))
    width = 10 * (picture.WIDTH - picture.LEFT - picture.RIGHT)
    line = Series("line", [0, 5, np.nan, 10], [1, 10, 10, 100], "#000000")
    assert picture.path(line, panel) == f"M0 2000l {width // 2}-1000M{width} 0l"
    assert picture.path(replace(line, kind="dots"), panel) == f"m0 2000h0m{width // 2}-1000h0m{width // 2}-1000h0"


def test_ticks_are_few_round_numbers_inside_their_axis() -> None:
    assert [text for _, text in picture.ticks(Axis("", -1.0, 1.0))] == ["−1", "−0.5", "0", "0.5", "1"]
    assert [text for _, text in picture.ticks(Axis("", 1.5, 30.0, log=True))] == ["2", "5", "10", "20"]
    for axis in (Axis("", 3e-9, 2.0, log=True), Axis("", 0.0, 700.0), Axis("", 0.91, 1.03)):
        found = picture.ticks(axis)
        assert 2 <= len(found) <= 8
        assert all(axis.low <= at <= axis.high for at, _ in found)


def frame(color: str = "#000000") -> tuple[Series, ...]:
    return (Series("dots", [0.5], [0.5], color),)


def an_element(**more) -> Element:
    unit = Axis("x", 0.0, 1.0)
    panel = Panel(unit, unit, "p", (), ("a",), {(0,): frame(), (1,): frame()})
    base = {"controls": (Control("a", "a", ("1", "2")),), "panels": (panel,), "texts": {(0,): "x", (1,): "y"}}
    return Element("title", **(base | more), caption="c", alt="a")


def test_a_choice_without_its_frame_or_sentence_is_refused() -> None:
    unit = Axis("x", 0.0, 1.0)
    with pytest.raises(ValueError, match="expected one for each of 2 choices, found 1"):
        an_element(texts={(0,): "x"})
    with pytest.raises(ValueError, match="no control is named"):
        an_element(panels=(Panel(unit, unit, "p", (), ("b",), {(0,): frame()}),))
    with pytest.raises(ValueError, match="differ in the looks"):
        an_element(panels=(Panel(unit, unit, "p", (), ("a",), {(0,): frame(), (1,): frame("#ffffff")}),))
    with pytest.raises(ValueError, match="cannot draw an axis"):
        an_element(panels=(Panel(unit, Axis("y", 0.0, 1.0, log=True)),))
    with pytest.raises(ValueError, match="starts at 2 of 2"):
        an_element(controls=(Control("a", "a", ("1", "2"), 2),))


def test_an_element_too_large_for_a_page_is_refused_with_what_to_do() -> None:
    rng = np.random.default_rng(0)
    unit = Axis("x", 0.0, 1.0)
    crowd = {(i,): (Series("line", rng.random(30_000), rng.random(30_000), "#000000"),) for i in range(2)}
    with pytest.raises(ValueError, match="ask for fewer choices"):
        html(an_element(panels=(Panel(unit, unit, "p", (), ("a",), crowd),)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: live.one_step(sizes=(1.0, 0.5)), "rising order"),
        (lambda: live.tolerances(cubic_field), "expected a field with y0"),
        (lambda: live.draws(cubic_field), "expected a field with its state"),
        (lambda: live.memory(TimeMLP((2, 2, 2))), "expected a field with its state"),
        (lambda: live.rejections(paths=0), "paths >= 1"),
        (lambda: live.trajectories(noises=(-1.0,)), "noise of at least 0"),
    ],
)
def test_wrong_arguments_are_refused_before_any_solve(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_the_page_of_the_report_keeps_the_pictures_and_drops_the_scripts() -> None:
    output = nbformat.v4.new_output("display_data", {"text/html": html(small("one_step"))})
    cell = nbformat.v4.new_code_cell("live.one_step()", outputs=[output])
    made = page(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), cell]))
    assert "<script" not in made
    assert "data:image/svg+xml;base64," in made


def test_helpers_say_what_they_say() -> None:
    assert [power(x) for x in (1e-5, 3e-4, 0.003, 0.3, 20.0)] == ["1e-5", "3e-4", "0.003", "0.3", "20"]
    assert [list(v) for v in staircase([0, 1, 3], [5, 6])] == [[0, 1, 1, 3], [5, 5, 6, 6]]
    assert around([1.0, 2.0], margin=0.5) == (0.5, 2.5)
    assert each(lambda i, k: 10 * i + k, 2, 2) == {(0, 0): 0, (0, 1): 1, (1, 0): 10, (1, 1): 11}
    with pytest.raises(ValueError, match="finite positive value"):
        around([-1.0, np.nan], log=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [live.one_step, live.tolerances, live.draws, live.trajectories, live.rejections, live.memory]
)
def test_the_elements_of_the_lessons_fit_on_a_page(make) -> None:
    assert len(html(make()).encode()) <= LARGEST


def test_each_element_stands_in_a_lesson() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (checkout.ROOT / "notebooks").glob("*.ipynb"))
    assert [name for name in EVERY if f"live.{name}(" not in sources] == []
