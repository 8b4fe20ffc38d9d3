"""What a typed line does: a message, a /command, or a [MARK] of the old system.

`handle` changes the session and says what came of it; showing that is somebody else's matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from rejoinder.chat import transcript
from rejoinder.chat.persona import sentences, shown
from rejoinder.chat.readable import readable
from rejoinder.chat.session import Answer, Session


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the chat itself has to say."""

    text: str


@dataclass(frozen=True, slots=True)
class Why:
    """How an answer came about."""

    answer: Answer
    min_confidence: float


@dataclass(frozen=True, slots=True)
class Over:
    """The user wants to leave."""


Outcome = Answer | Note | Why | Over


@dataclass(frozen=True, slots=True)
class Command:
    """One /command; `takes` names what may stand after it, empty if nothing may."""

    run: Callable[[Session, str], Outcome]
    help: str
    takes: str = ""


def handle(session: Session, line: str) -> Outcome | None:
    """Do what a line asks for; None if it is blank. RejoinderError if that cannot be done."""
    line = readable(line)
    text = line.strip()
    if not text:
        return None
    if text == "[EXIT]":
        return Over()
    if text == "[DONE]":
        return _reset(session, "")
    if line.startswith("/"):
        return _command(session, line)
    answer = session.say(line)
    if answer is None:
        return Note(f"The persona is set.\n{shown(session.dialogue.persona)}\nNow say something.")
    return answer


def _command(session: Session, line: str) -> Outcome:
    name, *rest = line[1:].split(maxsplit=1) or [""]
    argument = rest[0].strip() if rest else ""
    as_message = "To send it as a message, put a space before the /."
    command = COMMANDS.get(name.lower())
    if command is None:
        near = _nearest(name.lower())
        hint = f"did you mean /{near}? " if near else ""
        return Note(f"No command /{name[:40]}; {hint}/help lists all. {as_message}")
    if argument and not command.takes:
        return Note(f"/{name} takes nothing after it, got {argument[:40]!r}. {as_message}")
    return command.run(session, argument)


def _nearest(name: str) -> str:
    """Find the command that a name begins or resembles; empty if there is none."""
    begun = [known for known in COMMANDS if name and known.startswith(name)]
    return (begun or get_close_matches(name, COMMANDS, n=1, cutoff=0.4) or [""])[0]


def _why(session: Session, argument: str) -> Outcome:
    if session.last is None:
        return Note("No reply yet, so nothing to explain.")
    return Why(session.last, session.options.min_confidence)


def _persona(session: Session, argument: str) -> Outcome:
    if argument:
        session.set_persona(() if argument == "-" else sentences(argument))
    return Note(shown(session.dialogue.persona))


def _undo(session: Session, argument: str) -> Outcome:
    taken = session.undo()
    return Note("Nothing to take back." if taken is None else f"Taken back: {taken}")


def _reset(session: Session, argument: str) -> Outcome:
    session.reset()
    return Note(f"A new conversation.\n{shown(session.dialogue.persona)}")


def _save(session: Session, argument: str) -> Outcome:
    if not session.dialogue.messages:
        return Note("Nothing said yet, so nothing was saved.")
    return Note(f"Saved to {transcript.save(session.dialogue, argument)}")


def _help(session: Session, argument: str) -> Outcome:
    lines = [f"{f'/{name} {c.takes}'.rstrip():<15} {c.help}" for name, c in COMMANDS.items()]
    return Note(
        "\n".join(lines) + '\nA message may bring a persona: its lines that begin with "your '
        'persona:", with\n\\n for a line break. [DONE] is /reset, [EXIT] is /exit. '
        "Ctrl-C drops a line."
    )


def _exit(session: Session, argument: str) -> Outcome:
    return Over()


COMMANDS: dict[str, Command] = {
    "why": Command(_why, "why the last reply: the best candidates and their scores"),
    "persona": Command(
        _persona, 'show the persona; TEXT replaces it (split at " | "), - clears it', "[TEXT]"
    ),
    "undo": Command(_undo, "take back the last message and its reply"),
    "reset": Command(_reset, "begin a new conversation; what /persona set stays"),
    "save": Command(_save, "write the dialogue as JSONL, to a new file", "[FILE]"),
    "help": Command(_help, "show this"),
    "exit": Command(_exit, "leave; so does Ctrl-D"),
}
