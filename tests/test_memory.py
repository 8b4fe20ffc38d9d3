"""Memory is kept in the process where the C library allows it."""

from __future__ import annotations

import sys

import pytest

from rejoinder.memory import keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_glibc_takes_the_setting() -> None:
    assert keep_freed_memory()
