"""What made this: hashes of exactly the code that a run uses, lock, commit, records with a schema, figures."""

from __future__ import annotations

import ast
import getpass
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from reproduce import checkout, experiments, plots
from reproduce.runs import provenance, source
from reproduce.runs.store import Row

EXPERIMENTS = experiments.names()


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """A copy of the library's source."""
    return Path(shutil.copytree(source.LIB, tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__")))


def all_hashes(lib: Path) -> dict[str, dict[str, str]]:
    return {name: source.source_hashes(name, lib=lib) for name in EXPERIMENTS}


def stale(lib: Path, edit: Callable[[], object]) -> set[str]:
    """Names of the experiments whose hashes an edit changes."""
    before = all_hashes(lib)
    edit()
    after = all_hashes(lib)
    return {name for name in EXPERIMENTS if before[name] != after[name]}


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} has changed; adapt this test"
    path.write_text(text.replace(old, new, 1))


# Source hashes


def test_the_closure_holds_what_a_run_uses_and_no_other_experiment_and_no_bookkeeping() -> None:
    for name in EXPERIMENTS:
        found = set(source.source_hashes(name))
        solvers = {f"regnde.solvers.{module}" for module in ("solve", "loop", "steps", "tableaus", "control")}
        assert found >= solvers | {"reproduce.runs.train", "regnde.penalties.menu", "reproduce.models.losses"}
        of_experiments = {module for module in found if module.startswith("reproduce.experiments")}
        shared = {"mnist_sde": {"mnist_ode"}, "cifar10_multiscale_ode": {"cifar10_ode"}}.get(name, set())  # its images
        shared = shared | ({"of_images"} if name.startswith(("mnist", "cifar10")) else set())
        modules = {"chosen", "experiment", name} | shared
        assert of_experiments == {f"reproduce.experiments.{module}" for module in modules}
        assert not found & {"reproduce.runs.store", "reproduce.runs.sweep", "reproduce.report.tables", "reproduce.cli"}
        assert not {"regnde", "regnde.dropin.local_penalty"} & found  # passed on by the package, but not used
    assert "reproduce.data.spiral" in source.source_hashes("spiral_ode")
    images = {"reproduce.data.mnist", "reproduce.data.images", "reproduce.data.registry"}
    assert images <= set(source.source_hashes("mnist_ode"))
    assert not images & set(source.source_hashes("spiral_ode"))


@pytest.mark.slow
def test_the_closure_is_all_of_the_library_that_training_imports_but_for_the_named_bookkeeping() -> None:
    """The static analysis agrees with what Python imports in a fresh process."""
    code = (
        "import sys, reproduce.runs.train, reproduce.experiments.spiral_ode;"
        "print(*[name for name in sys.modules if name.split('.')[0] in ('regnde', 'reproduce')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {name for name in ran.stdout.split() if (source.LIB / name.replace(".", "/")).is_dir()}  # without code
    unused = ("draw_step", "kept_step", "local_penalty", "hear_solves", "ways", "solve_ways")  # by any run
    passed_on = {f"regnde.dropin.{name}" for name in unused}
    imported = set(ran.stdout.split()) - packages - passed_on - set(source.BOOKKEEPING)
    assert imported == set(source.source_hashes("spiral_ode"))


@pytest.mark.slow
def test_comments_docstrings_and_formatting_change_no_hash(lib: Path) -> None:
    def edit() -> None:
        for path in lib.rglob("*.py"):
            text = path.read_text().replace("\n\n\n", "\n\n\n# a comment\n\n\n", 1)
            path.write_text(text.replace(", ", ",  ") if '"""' not in text and "'" not in text else text)
        replace(lib / "regnde/solvers/solve.py", '"""', '"""Another first line of the docstring. ')
        replace(lib / "reproduce/experiments/experiment.py", '"""Arguments of the', '"""An edited text on the')

    everything = source.library_hash(lib=lib)
    assert stale(lib, edit) == set()
    assert source.library_hash(lib=lib) == everything


def test_another_list_of_runs_or_seeds_makes_nothing_stale_but_another_budget_does(lib: Path) -> None:
    path = lib / "reproduce/experiments/spiral_ode.py"
    assert stale(lib, lambda: replace(path, "seeds=QUICK_SEEDS", "seeds=(77,)")) == set()
    assert stale(lib, lambda: replace(path, "runs=(", 'runs=(Entry(regularizers=("none",)), ')) == set()
    assert stale(lib, lambda: replace(path, "history_every=25", "history_every=26")) == {"spiral_ode"}


def test_a_changed_function_of_the_solver_makes_every_experiment_stale(lib: Path) -> None:
    everything = source.library_hash(lib=lib)

    def edit() -> None:
        with (lib / "regnde/solvers/solve.py").open("a") as file:
            file.write("\n\ndef one_more():\n    return 1\n")

    assert stale(lib, edit) == set(EXPERIMENTS)
    assert source.library_hash(lib=lib) != everything


@pytest.mark.parametrize(
    ("module", "users"),
    [
        ("reproduce/data/spiral.py", {"spiral_ode", "spiral_sde"}),
        ("reproduce/data/spiral_sde.py", {"spiral_sde"}),
        ("reproduce/experiments/mnist_ode.py", {"mnist_ode", "mnist_sde"}),
        ("reproduce/models/latent.py", {"physionet"}),
    ],
)
def test_a_changed_data_set_or_experiment_makes_only_what_uses_it_stale(
    lib: Path, module: str, users: set[str]
) -> None:
    def edit() -> None:
        with (lib / module).open("a") as file:
            file.write("\n\nX = 1.5\n")

    assert stale(lib, edit) == users


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "runs/store.py",
        "runs/provenance.py",
        "report/tables.py",
        "runs/sweep.py",
        "experiments/__init__.py",
        "checkout.py",
    ],
)
def test_changed_bookkeeping_makes_nothing_stale(lib: Path, module: str) -> None:
    def edit() -> None:
        with (lib / "reproduce" / module).open("a") as file:
            file.write("\n\nX = 1.5\n")

    assert stale(lib, edit) == set()


def test_code_in_an_empty_init_and_a_module_imported_inside_a_function_are_seen(lib: Path) -> None:
    assert stale(lib, lambda: (lib / "regnde/__init__.py").write_text('"""x."""\n\nimport torch\n')) == set(EXPERIMENTS)
    (lib / "reproduce/extra.py").write_text("X = 1\n")
    imports = "\n\ndef _late():\n    from . import spirals\n    from ..extra import X\n"
    (lib / "reproduce/data/spirals.py").write_text("Y = 2\n")
    with (lib / "reproduce/data/spiral.py").open("a") as file:
        file.write(imports)
    assert {"reproduce.extra", "reproduce.data.spirals"} <= set(source.source_hashes("spiral_ode", lib=lib))
    assert stale(lib, lambda: (lib / "reproduce/extra.py").write_text("X = 2\n")) == {"spiral_ode", "spiral_sde"}


def test_values_that_look_alike_are_told_apart(lib: Path) -> None:
    seen = set()
    for value in ("1", "True", "1.0", "'1'", "b'1'", "None", "-0.0", "0.0", "f'{x}'", "f'{x!r}'", "x if y else z"):
        (lib / "reproduce/models/losses.py").write_text(f"def f(x, y, z):\n    return {value}\n")
        seen.add(source.source_hashes("spiral_ode", lib=lib)["reproduce.models.losses"])
    assert len(seen) == 11


def test_the_same_code_has_the_same_hash_in_every_version_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 ends the format of f"{x:{width}}" with an empty text, other versions do not."""
    tree = ast.parse('f"{x:{width}}" + f"{x:.2f}"')
    ours = source._plain(tree.body)
    [spec] = [node.format_spec for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and "width" in
              ast.dump(node) and node.format_spec is not None]  # fmt: skip
    assert isinstance(spec, ast.JoinedStr)
    spec.values = [spec.values[0], *([ast.Constant("")] if len(spec.values) == 1 else [])]
    assert source._plain(tree.body) == ours
    assert source._plain(ast.parse('f"{x:{width}}"')) != source._plain(ast.parse('f"{x:{width}.2f}"'))


def test_a_file_that_did_not_change_is_read_once_and_an_unknown_experiment_is_refused(lib: Path) -> None:
    source.source_hashes("spiral_ode", lib=lib)
    read = source._analyse.cache_info().misses
    source.source_hashes("spiral_ode", lib=lib)
    assert source._analyse.cache_info().misses == read
    with pytest.raises(ValueError, match="there is no experiment 'spirale'"):
        source.source_hashes("spirale", lib=lib)
    (lib / "reproduce/models/losses.py").write_text("def\n")
    with pytest.raises(ValueError, match=r"losses.py, line 1: not Python"):
        source.source_hashes("spiral_ode", lib=lib)


# Lock and commit


def test_the_lock_hash_covers_versions_but_neither_comments_nor_order(tmp_path: Path) -> None:
    assert provenance.lock_hash(tmp_path) == "unknown"
    lock = tmp_path / "requirements.lock"
    lock.write_text("# why\nb==2  # x\na==1\n")
    before = provenance.lock_hash(tmp_path)
    lock.write_text("a==1\n\n# else\nb==2\n")
    assert provenance.lock_hash(tmp_path) == before
    lock.write_text("a==1\nb==3\n")
    assert provenance.lock_hash(tmp_path) != before


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_dirty_by_what_git_tracks_but_not_by_what_a_run_leaves(tmp_path: Path) -> None:
    assert provenance.commit(tmp_path) == ("unknown", True)
    (tmp_path / "figures").mkdir()
    for name, text in {".gitignore": "build/\nfigures/quick/\n", "a.py": "1", "figures/x.png": "1"}.items():
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit(tmp_path) == (head, False)
    for folder in ("build", "figures/quick"):
        (tmp_path / folder).mkdir()
    for name in ("figures/quick/x.png", "build/y"):
        (tmp_path / name).write_text("2")
    assert provenance.commit(tmp_path) == (head, False)
    for path in provenance.OF_THE_STUDY:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("rows")
    assert provenance.commit(tmp_path) == (head, False)
    (tmp_path / "a.py").write_text("2")
    assert provenance.commit(tmp_path) == (head, True)


def test_a_folder_inside_a_foreign_repository_and_a_machine_without_git_have_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    (tmp_path / "unpacked").mkdir()
    assert provenance.commit(tmp_path / "unpacked") == ("unknown", True)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert provenance.commit(tmp_path) == ("unknown", True)


# Records


def test_a_record_is_as_its_schema_asks_and_names_no_host_user_or_path() -> None:
    made = provenance.record("quick", data=["b", "a", "b"], seeds=(2, 0), seconds=1.23456, stamp={"x": 1})
    provenance.check(made)
    assert (made["data"], made["seeds"], made["seconds"]) == (["a", "b"], [0, 2], 1.235)
    assert made["more"] == {"stamp": {"x": 1}}
    assert "more" not in provenance.record("quick")
    provenance.check(provenance.record("smoke"))
    text = json.dumps(made)
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert str(checkout.ROOT) not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostname": "h"}, "'hostname' was unexpected"),
        ({"profile": "fast"}, "profile: 'fast' is not one of"),
        ({"seeds": [0, "1"]}, "seeds.1: '1' is not of type 'integer'"),
        ({"threads": 0}, "threads: 0 is less than the minimum"),
        ({"commit": "abc"}, "commit: 'abc' does not match"),
        ({"made": "today"}, "made: 'today' does not match"),
        ({"data": ["a", "a"]}, "data: "),
        ({"lock": None}, "lock: None is not of type 'string'"),
    ],
)
def test_unknown_fields_and_wrong_values_are_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="not a record of provenance") as caught:
        provenance.check(provenance.record("quick") | change)
    assert words in str(caught.value)


def test_a_missing_field_is_refused_and_a_wrong_record_is_never_written(tmp_path: Path) -> None:
    made = provenance.record("quick")
    path = provenance.beside(tmp_path / "05_x.ipynb", made)
    assert path.name == "05_x.provenance.json"
    assert json.loads(path.read_text()) == made
    del made["lock"]
    with pytest.raises(ValueError, match="'lock' is a required property"):
        provenance.beside(tmp_path / "06_x.ipynb", made)
    assert [found.name for found in tmp_path.iterdir()] == ["05_x.provenance.json"]


# Figures


def row(**changes: Any) -> Row:
    numbers = dict.fromkeys(("nfe", "accepted", "rejected", "train_nfe"), 1.0)
    texts = {"experiment": "e", "regularizer": "none", "profile": "smoke", "part": "test", "note": "", "metric": "m"}
    rest = {"settings": {}, "seed": 0, "budget": {"rtol": 0.1}, "n_test": 1, "higher_is_better": True}
    return Row(**{**numbers, **texts, **rest, "key": "k", "data": "D", "metrics": {}, "seconds": {}, **changes})


def test_a_figure_made_again_is_the_same_to_the_byte_and_says_what_trained_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    told = tmp_path / "told"
    monkeypatch.setenv("REGNDE_TOLD", str(told))
    plots.style()
    made = {"commit": "c" * 40, "dirty": True, "lock": "l" * 16, "device": "cpu", "made": "now", "seconds": 1.0}
    rows = [row(key="2", provenance=made), row(key="1", provenance=made | {"made": "later"}), row(provenance={})]

    def save() -> dict[str, bytes]:
        fig, ax = plt.subplots()
        ax.plot([1, 2], label="größer → Ω")
        ax.legend()
        path = plots.save(fig, "x", alt="a line → up", caption="c", profile="smoke", rows=rows, pdf=True)
        plt.close(fig)
        return {found.name: found.read_bytes() for found in sorted(path.parent.iterdir())}

    first = save()
    assert list(first) == ["x.json", "x.pdf", "x.png", "x.svg"]
    heard = [json.loads(line)["file"] for line in told.read_text().splitlines()]
    assert heard == [f"figures/smoke/x.{kind}" for kind in ("png", "svg", "pdf", "json")]
    time.sleep(1.1)  # a time in seconds would differ
    plt.rcParams.update({"font.size": 30, "savefig.transparent": True})  # as a user's matplotlibrc may
    plots.style()
    assert save() == first
    about = json.loads(first["x.json"])
    assert about["alt"] == "a line → up"
    assert about["rows"] == ["1", "2", "k"]
    assert about["trained_with"] == [{"commit": "c" * 40 + "-dirty", "device": "cpu", "lock": "l" * 16}]
    with Image.open(tmp_path / "figures" / "smoke" / "x.png") as image:
        source = {name: about[name] for name in ("data", "profile", "rows", "trained_with")}
        assert image.info["Description"] == "a line → up"
        assert json.loads(image.info["Source"]) == source
    assert b"trained_with" in first["x.svg"]


@pytest.mark.parametrize(
    "module",
    ["notebooks.worker", "runs.provenance", "report.output", "site.stage", "course.make", "grading.inside"],
)
def test_a_process_that_reads_notebooks_or_checks_records_builds_no_grammar_of_addresses(module: str) -> None:
    said = "import sys, nbformat, jsonschema; print('lark' in sys.modules)"
    command = [sys.executable, "-c", f"import reproduce.{module}; {said}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_code_is_parsed_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.11 counts the depth of all threads together, and fails at random where two parse at once."""
    inside, most = [0], [0]

    def slow(code: str) -> str:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return code

    monkeypatch.setattr(source.ast, "parse", slow)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.parse, "abcdefgh")) == list("abcdefgh")
    assert most == [1]
