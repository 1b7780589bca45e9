"""docs/why.md and the README say nothing that no table says, and the break-even is the tables' own."""

import re
from pathlib import Path

import pytest
from why import CELLS, WAYS, Rates, measured, table

DOCS = Path(__file__).parents[2] / "docs"
PAGE = """<!-- begin comparison on label-skew -->
| **competence FD, student** | **88.8 ± 2.6** | **-** | **3.5 ± 1.5** | **5,000** | **8,940** |
| FedAvg, whole model, f32 | 91.0 ± 3.1 | 98.3 ± 0.7 | 2.9 ± 1.5 | 400,000 | 326,696 |
| FedAvg, whole model, int8 | 90.9 ± 2.2 | 98.5 ± 0.6 | 2.6 ± 1.7 | 50,000 | 39,338 |
| FedAvg, whole model, int4 | 90.2 ± 2.1 | 99.1 ± 0.6 | 2.6 ± 0.7 | 12,500 | 8,348 |
**What 86.4 % of all cost**
"""


@pytest.mark.parametrize(("page", "least"), [(DOCS / "why.md", 10), (DOCS.parent / "README.md", 6)])
def test_every_figure_of_the_page_is_one_of_a_table(page, least):
    tables = (DOCS / "benchmarks.md").read_text()
    figures = re.findall(r"\d+\.\d ± \d+\.\d", page.read_text())
    assert len(figures) >= least
    assert [figure for figure in figures if figure not in tables] == []


def test_the_break_even_follows_from_the_bytes_that_were_measured():
    rates = measured(PAGE)
    assert rates == Rates(4.0, {"f32": 32.0, "int8": 4.0, "int4": 1.0})
    assert [rates.even(10_000, way) for way in WAYS] == [1250, 10_000, 40_000]


def test_the_page_has_the_table_that_the_script_prints():
    said = table(measured((DOCS / "benchmarks.md").read_text()))
    assert said in (DOCS / "why.md").read_text()
    assert all(name in said for name in CELLS.values())


@pytest.mark.parametrize("gone", ["<!-- begin comparison on label-skew -->", "FedAvg, whole model, int8"])
def test_a_page_without_the_rows_is_refused(gone):
    with pytest.raises(ValueError, match="has no"):
        measured(PAGE.replace(gone, ""))
