"""Other libraries, without what they print, log and warn of while they write and read."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from rejoinder.models.pretrained import no_bars


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors are told, and those by exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with no_bars(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
