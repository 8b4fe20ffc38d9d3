"""Text of anybody in a table: nothing in it is read as Markdown."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rejoinder.training.markdown import cell, code, table

READER = MarkdownIt("commonmark").enable("table")


class Shown(HTMLParser):
    """What a reader of the page sees of each cell, and the marks around it."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.marks: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.marks.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells and data.strip():
            self.cells[-1] += data


def shown(*cells: str) -> Shown:
    page = Shown()
    page.feed(READER.render("\n".join(table(["a"] * len(cells), [list(cells)]))))
    return page


FRAME = ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
NASTY = ["a | b", "<script>x</script>", "**no** _no_ `no`", "![x](http://x.org/y.png)", "a\\|b"]
NASTY += ["# head", "&lt;", "\\", "one\ntwo\ttwo", "~~a~~ [b]", "- x", "|", "``", "a&b;"]


@pytest.mark.parametrize("text", NASTY)
def test_text_is_shown_as_it_is(text: str) -> None:
    page = shown(cell(text), "next")
    assert page.marks == FRAME
    assert page.cells == [" ".join(text.split()), "next"]


@pytest.mark.parametrize("text", ["a | b", "a `b` | c", "``", "rejoinder train 'a|b'", "<b>"])
def test_code_is_shown_as_it_is(text: str) -> None:
    page = shown(code(text), "next")
    assert page.marks == [*FRAME[:-1], "code", FRAME[-1]]
    assert page.cells == [text, "next"]


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_is_one_short_cell(text: str) -> None:
    page = shown(cell(text, 100), "next")
    assert page.marks == FRAME
    assert page.cells[1:] == ["next"]
    assert len(page.cells[0]) <= 100
    cell(text).encode()
