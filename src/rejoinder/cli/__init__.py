"""The command line: each command parses, calls one function of `tasks`, and prints.

Results go to stdout, progress and notes to stderr. Heavy libraries are imported inside the
commands, so that `rejoinder --help` is instant. A module adds its commands to `app` when imported.
"""

from rejoinder.cli import (
    candidates,
    chat,
    data,
    exporting,
    importing,
    index,
    measure,
    mine,
    report,
    train,
)
from rejoinder.cli.application import app
from rejoinder.cli.run import main

__all__ = [
    "app",
    "candidates",
    "chat",
    "data",
    "exporting",
    "importing",
    "index",
    "main",
    "measure",
    "mine",
    "report",
    "train",
]
