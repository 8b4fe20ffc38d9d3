"""Run one command; what goes wrong is told in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper

from rejoinder.cli.application import app, typed
from rejoinder.errors import RejoinderError
from rejoinder.progress import note


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command (that of `sys.argv`); an error for the user is one line and exit code 1."""
    try:
        _run(arguments)
    except SystemExit as exit_:
        _end(exit_.code)
        raise
    _end(0)


def _end(code: object) -> None:
    """One of several processes that trained together ends here, the way that is safe for it."""
    together = sys.modules.get("rejoinder.training.processes")  # if nothing loaded it, it is alone
    if together:
        together.end(code if isinstance(code, int) else int(code is not None))


def _run(arguments: Sequence[str] | None) -> None:
    if isinstance(sys.stdout, TextIOWrapper):  # file names may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    typed[:] = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            app(typed)
        finally:
            if sys.stdout:  # None where it was closed from the start
                sys.stdout.flush()  # here, where an error can still be told
    except RejoinderError as error:
        raise _failed(str(error)) from None
    except KeyboardInterrupt:
        note("\nstopped; nothing that was finished is lost")
        raise SystemExit(130) from None
    except BrokenPipeError:
        _silence_output()  # the reader of our output went away: nobody is left to tell
        raise SystemExit(1) from None
    except OSError as error:
        _silence_output()
        raise _failed(
            f"{error.filename or 'output'}: cannot be read or written ({error.strerror or error}); "
            "check the place and its free space, then run the same command again"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise _failed(
            f"not enough memory ({str(error)[:120] or 'none left'}); take less at once, such as a "
            "smaller --max-tokens, --max-context or data file"
        ) from None


def _failed(message: str) -> SystemExit:
    note("rejoinder: " + message.replace("\n", " "))
    return SystemExit(1)


def _silence_output() -> None:
    """Send what is left in the buffer to nowhere, or Python complains about it at the very end."""
    with suppress(OSError, ValueError, AttributeError):
        broken = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, broken)
        os.close(nowhere)


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, torch on a processor, or torch on a GPU ran out of memory."""
    text = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or any(
        sign in text for sign in ("OutOfMemory", "out of memory", "allocate memory")
    )
