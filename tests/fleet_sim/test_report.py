"""A report says the same in the terminal, in the picture and in the page."""

import io

import pytest
from rich.console import Console

from fd_runtime.pages import Section
from fleet_sim.reports.report import Curve, Report, print_report, write_html, write_png


@pytest.fixture
def report() -> Report:
    return Report(
        title="Ten <devices>",
        summary=("Three digits live on devices alone.",),
        curves=(Curve("competence FD", (0.5, 0.7, 0.812), is_ours=True), Curve("server only", (0.632,))),
        sections=(Section("After 3 rounds", ("method", "global"), (("competence FD", "81.2 %"),), "A note."),),
        command="fleet-sim demo",
    )


def test_the_terminal_shows_every_cell(report):
    out = io.StringIO()
    print_report(report, Console(file=out, width=100))
    for text in ("Three digits live on devices alone.", "competence FD", "81.2 %", "A note."):
        assert text in out.getvalue()


def test_the_page_holds_picture_numbers_and_no_outside_address(report, tmp_path):
    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert "81.2" in page
    assert "Ten &lt;devices&gt;" in page
    assert not any(mark in page for mark in ("<script", "src=", "@import", "<link"))


def test_a_curve_shorter_than_the_others_leaves_its_cells_empty(report, tmp_path):
    short = Report(report.title, (), (*report.curves, Curve("stopped early", (0.4, 0.5))), (), "x")
    write_html(short, tmp_path / "report.html")
    row = (tmp_path / "report.html").read_text().split("stopped early</td>")[1].split("</tr>")[0]
    assert row == "<td>40.0</td><td>50.0</td><td></td>"


def test_the_picture_is_a_png(report, tmp_path):
    write_png(report, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_round_in_which_nobody_was_asked_leaves_a_gap(report, tmp_path):
    gappy = Report(
        report.title, (), (Curve("seldom asked", (float("nan"), 0.5, float("nan"), 0.75, float("nan"))),), (), "x"
    )
    write_html(gappy, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    row = page.split("seldom asked</td>")[1].split("</tr>")[0]
    assert row == "<td>-</td><td>50.0</td><td>-</td><td>75.0</td><td>-</td>"
    assert "seldom asked  75.0" in page
    assert "nan" not in page
