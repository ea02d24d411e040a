"""The registration: older than every row that it governs, unchanged since, and obeyed by the committed rows."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from reproduce import checkout
from reproduce.report import verdicts
from reproduce.runs import protocol, store
from reproduce.runs.registered import PATH, REGISTERED_IN, registered
from reproduce.runs.store import Row

ROWS = [
    (stage, row) for stage in protocol.STAGES for name in protocol.names() for row in store.committed_rows(stage, name)
]
WORDS = (checkout.ROOT / "PROTOCOL.md").read_text(encoding="utf-8")


@cache
def registered_at(commit: str) -> dict[str, Any] | None:
    """The registration as a commit has it; None where this clone does not know the commit."""
    known = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    if subprocess.run(known, cwd=checkout.ROOT, capture_output=True, check=False).returncode:
        return None
    show = ["git", "show", f"{commit}:{PATH}"]
    found = subprocess.run(show, cwd=checkout.ROOT, capture_output=True, text=True, check=True)  # fails where it is not
    content: dict[str, Any] = yaml.safe_load(found.stdout)
    return content


def test_every_row_was_made_when_the_registration_stood_and_from_a_tree_without_changes() -> None:
    now = registered()
    unknown = 0
    for stage, row in ROWS:
        assert row.provenance["dirty"] is False, (stage, row.key)
        then = registered_at(row.provenance["commit"])
        if then is None:
            unknown += 1
            continue
        assert then["version"] <= now["version"]
        if then["version"] == now["version"]:
            assert then == now, f"{row.key}: the registration was changed after this row without a new version"
    if ROWS and unknown == len(ROWS):
        pytest.skip("this clone has no history: the commits of the rows cannot be looked up")


def test_no_reported_row_has_a_seed_that_something_was_chosen_on_and_no_ladder_saw_the_test_part() -> None:
    for stage, row in ROWS:
        if stage in ("rates", "ladders"):
            assert (row.part, row.seed <= 2) == ("validation", True)
        elif row.part == "test":
            assert row.seed >= 10


def test_a_measurement_of_version_2_is_younger_than_it_from_a_clean_tree_and_of_a_reported_seed() -> None:
    found = [one for name in protocol.names() for one in store.first_steps(name)]
    for one in found:
        made = one["provenance"]
        assert made["dirty"] is False
        assert one["seed"] in registered()["seeds"]["study"]
        then = registered_at(made["commit"])
        assert then is None or (then["version"] >= 2 and then["first_step"] == registered()["first_step"])


def test_every_committed_row_is_a_run_of_the_protocol_with_the_settings_that_it_names() -> None:
    def plain(row: Row) -> str:
        return json.dumps(
            [row.experiment, row.regularizer, row.seed, row.part, row.provenance["more"]["instead"]], sort_keys=True
        )

    for stage, runs_of in protocol.STAGES.items():
        for name in protocol.names():
            rows = store.committed_rows(stage, name)
            listed = {
                json.dumps([r.experiment, r.regularizer, r.seed, r.part, r.instead()], sort_keys=True)
                for r in runs_of(name)
            }
            assert {plain(row) for row in rows} <= listed


def test_a_further_version_leaves_what_the_first_registered_as_it_is() -> None:
    first = registered_at(REGISTERED_IN[1])
    if first is None:
        pytest.skip("this clone has no history")
    new = {"version", "versions", "first_step"}
    assert {name: of for name, of in registered().items() if name not in new} == {
        name: of for name, of in first.items() if name not in new
    }


def test_the_versions_are_told_in_words_too() -> None:
    told = re.findall(r"^\| (\d+) \| (\d{4}-\d\d-\d\d) \|", WORDS, flags=re.MULTILINE)
    assert told == [(str(one["version"]), str(one["day"])) for one in registered()["versions"]]
    assert registered()["version"] == int(told[-1][0])


def test_the_claims_name_lines_that_the_study_runs() -> None:
    for claim in verdicts.claims():
        for experiment, lines in claim.parts.items():
            ran = protocol.lines(experiment)
            assert {*lines, claim.against} <= set(ran), claim.id
            for line in lines if len(verdicts.forms(claim)) > 1 else ():
                assert {f"{line}:released", f"{line}:text"} <= set(ran), claim.id
