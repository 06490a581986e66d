"""The page about hostile runs says what the tests hold."""

from __future__ import annotations

import os

from document import PAGE, page


def test_the_page_is_that_of_the_tables() -> None:
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "run it again with UPDATE_DOCS=1"
