"""What people read after grading: the table, as CSV and as a page, and one page of feedback for each student."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from typing import Any

import nbformat

from reproduce.grading.classroom import grade_id

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;width:100%}th,td{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
pre{background:#f4f4f4;padding:.8rem;white-space:pre-wrap;overflow-wrap:anywhere}
.why{border-left:4px solid #a40000;padding-left:.8rem}"""


def feedback(result: dict[str, Any], notebook: nbformat.NotebookNode | None) -> str:
    """Return one student's page: points and what the checks said, problem by problem; never the hidden checks."""
    said = {} if notebook is None else {grade_id(cell): _said(cell) for cell in notebook.cells}
    body = [f"<p>{_points(result)}</p>"]
    if result["reason"]:
        body.append(f'<p class="why">The run was stopped, so there are no points: {html.escape(result["reason"])}.</p>')
    for part in result["parts"]:
        wait = " (a person still has to read this)" if part["open"] else ""
        body.append(f"<h2>{html.escape(part['name'])}: {part['points']:g} of {part['most']:g}{wait}</h2>")
        if part["comment"]:
            body.append(f"<p>{html.escape(part['comment'])}</p>")
        if said.get(part["name"]):
            body.append(f"<pre>{html.escape(said[part['name']])}</pre>")
    return _page(f"{result['set']}: {result['student']}", "\n".join(body))


def _said(cell: nbformat.NotebookNode) -> str:
    if cell.cell_type != "code" or not cell.metadata.get("nbgrader", {}).get("grade"):
        return ""
    lines = ["".join(out.text) for out in cell.outputs if out.output_type == "stream"]
    errors = [f"{out.ename}: {out.evalue}" for out in cell.outputs if out.output_type == "error"]
    return "".join(lines)[:20_000] + "\n".join(errors)[:2_000]


def _points(result: dict[str, Any]) -> str:
    wait = ", before the texts are read" if any(part["open"] for part in result["parts"]) else ""
    return f"<strong>{result['points']:g} of {result['most']:g} points</strong>{wait}."


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the table as CSV: one line a student, one column a problem."""
    names = [part["name"] for part in results[0]["parts"]] if results else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["student", "points", "of", "to read", *names, "status", "reason", "seconds", "memory_mb", "disk_mb", "graded"]
    )
    for result in results:
        of = {part["name"]: part for part in result["parts"]}
        to_read = sum(part["open"] for part in result["parts"])
        usage = (result["seconds"], result["memory_mb"], result["disk_mb"], result["graded"])
        given = [f"{of[name]['points']:g}" if name in of else "" for name in names]
        head = [_plain(result["student"]), f"{result['points']:g}", f"{result['most']:g}", to_read]
        writer.writerow([*head, *given, result["status"], _plain(result["reason"]), *usage])
    return out.getvalue()


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@" and text else text


def overview(name: str, results: Sequence[dict[str, Any]], protection: str) -> str:
    """Return the table as a page, with a link to each student's feedback."""
    lines = []
    for result in results:
        link = f'<a href="feedback/{name}/{html.escape(result["student"])}.html">{html.escape(result["student"])}</a>'
        cells = [f'<td class="n">{part["points"]:g}{" ?" if part["open"] else ""}</td>' for part in result["parts"]]
        total = f'<td class="n">{result["points"]:g}</td>'
        lines.append(
            f"<tr><td>{link}</td>{total}{''.join(cells)}<td>{html.escape(result['reason'] or 'ran')}</td></tr>"
        )
    parts = results[0]["parts"] if results else []
    heads = "".join(f'<th class="n">{html.escape(part["name"])}<br>of {part["most"]:g}</th>' for part in parts)
    most = f"{results[0]['most']:g}" if results else "0"
    stopped = sum(result["status"] != "ok" for result in results)
    body = (
        f"<p>{len(results)} submissions, {stopped} of them stopped or unreadable. A question mark: a person has still "
        f"to read it.</p><table><thead><tr><th>student</th><th class='n'>points<br>of {most}</th>{heads}"
        "<th>the run</th></tr>"
        f"</thead><tbody>{''.join(lines)}</tbody></table><p>Sandbox on this machine: {html.escape(protection)}.</p>"
    )
    return _page(name, body)


def _page(title: str, body: str) -> str:
    title = html.escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )
