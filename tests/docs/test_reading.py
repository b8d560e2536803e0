"""Read a page: its pieces, its blocks with their notes, its links, and its anchors as GitHub makes them."""

from __future__ import annotations

import pytest

from tests.docs.blocks import Note, blocks_of
from tests.docs.pages import Link, Page, slug_of
from tests.docs.python_blocks import source
from tests.docs.shell_blocks import matches

TEXT = """# A page

<!-- every shell block run by: tests/test_x.py -->
See [one](one.md) and ![a picture](pictures/a.svg).

<!-- setting
x = 1

y = 2
-->
<!-- parsed only: for a reason -->

```python
print(x)

```

- In a list:

  ~~~shell other words
  ls
  ~~~

````text
```not a fence
[no](link.md)
````

`[no](link.md)` [**two**](two.md#b "title") <https://example.com/x>
[ref]: three.md

<!-- a comment of another kind -->
## Übung: `code`, [link](x.md) & more
## A page
### A page
"""


def test_blocks_have_their_notes_and_lines() -> None:
    python, shell, text = blocks_of("p.md", TEXT)
    assert (str(python), python.language, python.text) == ("p.md:14", "python", "print(x)\n")
    assert python.notes == {
        "setting": Note("setting", "x = 1\n\ny = 2", 7),
        "parsed only": Note("parsed only", "for a reason", 11),
    }
    assert (shell.language, shell.line, shell.text) == ("shell", 21, "ls")
    assert shell.notes == {"run by": Note("run by", "tests/test_x.py", 3)}
    assert text.text == "```not a fence\n[no](link.md)"
    assert source(python).splitlines()[6] == "x = 1"
    assert source(python).splitlines()[13] == "print(x)"


def test_an_output_belongs_to_the_block_above() -> None:
    above, below = blocks_of("p.md", "```shell\nls\n```\nprints\n\n<!-- output -->\n```text\nfile\n```\n")
    assert above.output == below
    assert below.output is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- seting: x -->\n```python\n```\n", "p.md:1: no note is called 'seting'"),
        ("<!-- serves -->\nWords.\n", "p.md:2: the note 'serves' stands above no block"),
        ("<!-- serves -->\n", "p.md:2: the note 'serves' stands above no block"),
        ("<!-- output -->\n```text\n```\n", "p.md:3: there is no block above"),
    ],
)
def test_a_misplaced_or_unknown_note_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        blocks_of("p.md", text)


def test_links_and_anchors() -> None:
    page = Page("p.md", TEXT)
    assert page.links() == [
        Link(4, "one.md"),
        Link(4, "pictures/a.svg"),
        Link(29, "https://example.com/x"),
        Link(29, "two.md#b"),
        Link(30, "three.md"),
        Link(33, "x.md"),
    ]
    assert page.anchors() == {"a-page", "übung-code-link--more", "a-page-1", "a-page-2"}


@pytest.mark.parametrize(
    ("heading", "slug"),
    [
        ("What `--start` does", "what---start-does"),
        ("With your own `business_key`", "with-your-own-business_key"),
        ("On Airflow 3.0 to 3.2", "on-airflow-30-to-32"),
        ("Who, when & why?", "who-when--why"),
    ],
)
def test_a_heading_has_the_anchor_of_github(heading: str, slug: str) -> None:
    assert slug_of(heading) == slug


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a … c", "a b\n b c", True),
        ("a", "a\nb", False),
        ("(a.c)", "(abc)", False),
    ],
)
def test_an_ellipsis_matches_any_output(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same
