"""The native format: one JSON object a line, with the dialogue under `messages`.

    {"persona": ["i like tea."], "messages": [{"role": "user", "content": "hi"}, ...]}

Optional beside `messages`: `persona` (of the assistant) and `partner_persona` (of the user). An
assistant message may have `candidates`, which it was chosen from, and `alternatives`, which are
as right as it. Other keys are ignored; null stands for an optional key that is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rejoinder.data.files import numbered_lines, writing
from rejoinder.data.reports import Report, stop
from rejoinder.errors import DataError
from rejoinder.schema import ROLES, Dialogue, Message

LAYOUT = '{"messages": [{"role": "user" or "assistant", "content": "..."}, ...]}'


def read_jsonl(path: Path, report: Report = stop) -> Iterator[tuple[int, Dialogue]]:
    """Every dialogue with the number of its line; a bad line is reported and left out."""
    for number, line in numbered_lines(path, report):
        if not line.strip():
            continue
        try:
            yield number, parse_dialogue(_parsed(line))
        except DataError as error:
            report(DataError(f"{path}:{number}: {error}"))


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"not JSON ({error}): {line[:60]!r}; expected one object a line: {LAYOUT}. "
            "Is it another format? Then name it"
        ) from error


def write_jsonl(dialogues: Iterable[Dialogue], path: Path) -> int:
    """Write dialogues to a file, whole or not at all, and say how many they were."""
    count = 0
    with writing(path) as file:
        for dialogue in dialogues:
            file.write(json.dumps(to_json(dialogue), ensure_ascii=False) + "\n")
            count += 1
    return count


def to_json(dialogue: Dialogue) -> dict[str, object]:
    """Give a dialogue as plain lists and dicts; `parse_dialogue` is the way back."""
    found: dict[str, object] = {}
    if dialogue.persona:
        found["persona"] = list(dialogue.persona)
    if dialogue.partner_persona:
        found["partner_persona"] = list(dialogue.partner_persona)
    found["messages"] = [_message_to_json(message) for message in dialogue.messages]
    return found


def _message_to_json(message: Message) -> dict[str, object]:
    found: dict[str, object] = {"role": message.role, "content": message.content}
    if message.candidates:
        found["candidates"] = list(message.candidates)
    if message.alternatives:
        found["alternatives"] = list(message.alternatives)
    return found


def parse_dialogue(data: object) -> Dialogue:
    """Make a dialogue of parsed JSON, or raise `DataError` saying which part is wrong and how."""
    if not isinstance(data, dict):
        raise DataError(f"expected an object {LAYOUT}, got {shown(data)}")
    if not isinstance(data.get("messages"), list):
        got = shown(data["messages"]) if "messages" in data else f"the keys {_listed(data)}"
        raise DataError(f"messages: expected a list as in {LAYOUT}, got {got}")
    return Dialogue(
        tuple(
            _message(message, f"messages[{place}]")
            for place, message in enumerate(data["messages"])
        ),
        texts(data.get("persona"), "persona"),
        texts(data.get("partner_persona"), "partner_persona"),
    )


def _message(data: object, where: str) -> Message:
    if not isinstance(data, dict):
        raise DataError(f'{where}: expected {{"role", "content"}}, got {shown(data)}')
    for key in ("role", "content"):
        if key not in data:
            raise DataError(f"{where}: no {key}; expected role and content, got {_listed(data)}")
    for role in ROLES:
        if data["role"] == role:
            break
    else:
        raise DataError(
            f"{where}.role: expected {' or '.join(ROLES)}, got {shown(data['role'])}; "
            "the one who is to be answered is the user"
        )
    return Message(
        role,
        a_text(data["content"], f"{where}.content"),
        texts(data.get("candidates"), f"{where}.candidates"),
        texts(data.get("alternatives"), f"{where}.alternatives"),
    )


def texts(data: object, where: str) -> tuple[str, ...]:
    """Check a list of texts; None is an empty one."""
    if data is None:
        return ()
    if not isinstance(data, list):
        raise DataError(f"{where}: expected a list of texts, got {shown(data)}")
    return tuple(a_text(text, f"{where}[{place}]") for place, text in enumerate(data))


def a_text(data: object, where: str) -> str:
    """Check one text."""
    if not isinstance(data, str):
        raise DataError(f"{where}: expected a text in quotes, got {shown(data)}")
    try:
        data.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: half a character (\\u{ord(data[error.start]):04x}) without its other half; "
            f"expected whole characters, got {data[:60]!r}. Was the text cut inside an emoji?"
        ) from error
    return data


def shown(data: object) -> str:
    """Show the start of a value the way JSON writes it, for messages."""
    text = json.dumps(data, ensure_ascii=False)
    text = "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
    return text if len(text) <= 60 else text[:60] + "..."


def _listed(data: dict[str, object]) -> str:
    return ", ".join(map(str, data)) or "nothing"
