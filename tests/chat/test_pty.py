"""A person at a real (pseudo) terminal: editing, history, Ctrl-C, Ctrl-D."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rejoinder.data import read

pytestmark = pytest.mark.slow
UP, CTRL_C, CTRL_D = "\x1b[A", "\x03", "\x04"
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PATIENCE = 300  # seconds; the machine may be busy


class Person:
    """Types at a chat and reads what it shows."""

    def __init__(self, home: Path, **env: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("overlap.py"))],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=home,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "XDG_STATE_HOME": str(home / "state"),
                "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody here answers where the cursor is
                **env,
            },
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""  # not yet waited for, without colours and cursor moves
        self.steered = False  # whether there were any

    def types(self, text: str) -> None:
        os.write(self.master, text.encode(errors="surrogateescape"))

    def sees(self, text: str) -> str:
        """Wait for a text after what was seen before, and give all up to its end."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert self._reads(end), f"{text!r} did not come; seen: {self.seen!r}"
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def _reads(self, end: float) -> bool:
        """Wait for output; False if none came in time or none will."""
        ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
        try:
            block = os.read(self.master, 65536).decode(errors="replace") if ready else ""
        except OSError:  # the other end is closed
            return False
        self.steered |= "\x1b" in block
        self.seen = STEERING.sub("", self.seen + block)
        return bool(block)

    def interrupts(self) -> None:
        """Press Ctrl-C until it is noticed: `input` may lose one in the moment before it reads."""
        for _ in range(PATIENCE // 5):
            self.types(CTRL_C)
            end = time.monotonic() + 5
            while self._reads(end):
                if "Dropped." in self.seen:
                    self.sees("Dropped.")
                    return
        raise AssertionError(f"Ctrl-C went unnoticed; seen: {self.seen!r}")

    def is_asked(self) -> str:
        """Wait for the prompt, and until keys go to it and no more to the terminal."""
        before = self.sees("you:")
        self._waits_for(lambda: not self._terminal_edits())
        return before

    def waits_for_an_answer(self) -> None:
        """Wait until the prompt has given the terminal back, so that Ctrl-C is a signal."""
        self._waits_for(self._terminal_edits)

    def _terminal_edits(self) -> bool:
        return bool(termios.tcgetattr(self.master)[3] & termios.ICANON)

    def _waits_for(self, state: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not state():
            assert time.monotonic() < end, f"the terminal is not handed over; {self.seen!r}"
            time.sleep(0.01)

    def leaves(self) -> int:
        self.sees("left well")
        return self.process.wait(PATIENCE)


SitDown = Callable[..., Person]


@pytest.fixture
def at_terminal(tmp_path: Path) -> Iterator[SitDown]:
    people: list[Person] = []

    def sit_down(**env: str) -> Person:
        people.append(Person(tmp_path, **env))
        return people[-1]

    yield sit_down
    for person in people:
        person.process.kill()
        person.process.wait()
        os.close(person.master)


def test_a_chat(at_terminal: SitDown, tmp_path: Path) -> None:
    person = at_terminal(TERM="xterm", NO_COLOR="1")
    opening = person.is_asked()
    assert "overlap, 4 candidates" in opening
    assert "I am: I like tea." in opening
    assert "/help" in opening

    person.types("green teq\x7fa\r")  # with a slip of the finger
    person.sees("bot: I love green tea.")
    person.is_asked()
    person.types(UP)
    person.sees("green tea")
    person.types(" and cats, two cats that sleep\r")
    person.sees("bot: My two cats sleep all day.")
    person.is_asked()
    person.types("/why\r")
    table = person.sees("Time: ")
    assert "score" in table
    assert "Candidates considered: 4" in table
    person.is_asked()

    person.types("never mind" + CTRL_C)
    person.sees("Dropped.")
    person.is_asked()
    person.types("wait\r")
    person.waits_for_an_answer()
    person.types(CTRL_C)
    person.sees("Dropped.")
    person.is_asked()
    person.types("fail\r")
    person.sees("Error: index: is stale; build it again")
    person.is_asked()

    person.types("/sav\t talk.jsonl\r")
    person.sees("Saved to")
    person.is_asked()
    person.types(CTRL_D)
    assert person.leaves() == 0
    (talk,) = read(tmp_path / "talk.jsonl")
    assert [message.content for message in talk.messages[::2]] == [
        "green tea",
        "green tea and cats, two cats that sleep",
    ]
    kept = (tmp_path / "state" / "rejoinder" / "history").read_text()
    assert "+green tea\n" in kept
    assert "never mind" not in kept


def test_the_next_chat_remembers_the_lines_and_pasted_text_stays_together(
    at_terminal: SitDown,
) -> None:
    first = at_terminal(TERM="xterm")
    first.is_asked()
    first.types("green tea\r")
    first.sees("bot: I love green tea.")
    first.is_asked()
    first.types("[EXIT]\r")
    assert first.leaves() == 0

    second = at_terminal(TERM="xterm")
    second.is_asked()
    second.types(UP + UP + "\r")
    second.sees("I love green tea.")
    second.is_asked()
    second.types("\x1b[200~your persona: a.\nyour persona: b.\x1b[201~\r")
    second.sees("I am: a.")
    second.sees("I am: b.")
    second.is_asked()
    second.types(CTRL_D)
    assert second.leaves() == 0


def test_a_dumb_terminal(at_terminal: SitDown) -> None:
    person = at_terminal(TERM="dumb")
    person.sees("you: ")
    person.types("green \udcff tea\r")
    person.sees("bot: I love green tea.")
    person.sees("you: ")
    person.types("never mind")
    person.interrupts()
    person.sees("you: ")
    person.types(CTRL_D)
    assert person.leaves() == 0
    assert not person.steered


def test_no_place_for_the_history(at_terminal: SitDown) -> None:
    person = at_terminal(TERM="xterm", XDG_STATE_HOME="/dev/null")
    person.is_asked()
    person.types("green \udcff tea\r")
    person.sees("bot: I love green tea.")
    person.is_asked()
    person.types(UP + "\r")
    person.sees("bot: I love green tea.")
    person.is_asked()
    person.types(CTRL_D)
    assert person.leaves() == 0
