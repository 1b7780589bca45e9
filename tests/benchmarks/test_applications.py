"""docs/applications.md has the goals of every example, and says of which nothing was played."""

from __future__ import annotations

from benchmarks.applications import EXAMPLES, PAGE, side_by_side

PLAYED = """# A

<!-- begin table: a -->
    python run.py

5 seeds.

| goal | measured |  |
|---|---|---|
| ours, above theirs: at least +0 (or why) | +1.2 ± 0.3 | reached |
| ours, above theirs, own: at least -1 (or so) | -2.0 ± 0.3 | **missed** |

| points | x |
|---|---|
| other | 1 |
<!-- end table: a -->
"""


def test_goals_of_examples_stand_side_by_side_and_what_was_not_played_says_so(tmp_path):
    pages = {
        "a": PLAYED,
        "b": "<!-- begin table: b -->\nNot played yet.\n<!-- end table: b -->\n",
        "clients": "No table.",
    }
    for name, text in pages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(text)
    assert side_by_side(tmp_path).splitlines()[2:] == [
        "| [a](../examples/a/README.md) | ours, above theirs: at least +0 (or why) | +1.2 ± 0.3 | reached |",
        "| [a](../examples/a/README.md) | ours, above theirs, own: at least -1 (or so) | -2.0 ± 0.3 | **missed** |",
        "| [b](../examples/b/README.md) |  | not played yet |  |",
    ]


def test_the_page_says_what_the_examples_say_now_and_names_each():
    """As `python benchmarks/applications.py` writes it."""
    page = PAGE.read_text()
    assert side_by_side(EXAMPLES) in page
    for example in EXAMPLES.glob("*/run.py"):
        assert f"| [{example.parent.name}](" in page.partition("<!-- begin goals -->")[0]
