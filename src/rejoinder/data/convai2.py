"""Dialogues in one JSON file, such as ConvAI2 in the layout of transfer-learning-conv-ai.

    {"train": [dialogue, ...], "valid": [...]}  or  [dialogue, ...]

A dialogue is one of
- {"personality": [...], "utterances": [{"history": [...], "candidates": [..., the reply]}, ...]};
- {"persona": [...], "turns": ["hi", "hello", ...]}, user first, or only the list of turns;
- {"messages": [...]}, the native layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rejoinder.data.json_stream import json_members
from rejoinder.data.messages import a_text, parse_dialogue, shown, texts
from rejoinder.data.parlai import is_silence
from rejoinder.data.reports import Report, stop
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message, Role

LAYOUT = '{"personality": [...], "utterances": [{"history": [...], "candidates": [...]}, ...]}'


def read_json(path: Path, report: Report = stop) -> Iterator[tuple[int, Dialogue]]:
    """Every dialogue with the number of its first line; a bad one is reported and left out."""
    for line, place, member in json_members(path):
        try:
            found = _dialogues(member)
        except DataError as error:
            report(DataError(f"{path}:{line}: {place}: {error}"))
            continue
        for dialogue in found:
            yield line, dialogue


def _dialogues(data: object) -> list[Dialogue]:
    if isinstance(data, list):
        return [Dialogue(_alternating(texts(data, "turns")))]
    if not isinstance(data, dict):
        raise DataError(
            f"expected a dialogue such as {LAYOUT}, got {shown(data)}; "
            "dialogues stand in a list, a single one too"
        )
    if "messages" in data:
        return [parse_dialogue(data)]
    key = "turns" if "turns" in data else "utterances"
    turns = data.get(key)
    if not isinstance(turns, list):
        raise DataError(
            f"expected {LAYOUT}, got the keys {', '.join(data) or '(none)'}; "
            "dialogues stand in a list, a single one too"
        )
    persona = _persona(data)
    if turns and isinstance(turns[0], dict):
        return _joined(turns, persona)
    return [Dialogue(_alternating(texts(turns, key)), persona)]


def _persona(data: dict[str, object]) -> tuple[str, ...]:
    """Read the sentences; some files have one text in place of the list, or an empty one."""
    key = "persona" if "persona" in data else "personality"
    persona = data.get(key)
    if isinstance(persona, str):
        return (a_text(persona, key),) if persona else ()
    return texts(persona, key)


def _alternating(turns: Sequence[str], last: Role | None = None) -> tuple[Message, ...]:
    """Make messages of turns: the user opens, or else the end is spoken by `last`."""
    roles: tuple[Role, Role] = ("user", "assistant")
    shift = 0 if last is None else (roles.index(last) - len(turns) + 1) % 2
    return tuple(
        Message(roles[(place + shift) % 2], turn)
        for place, turn in enumerate(turns)
        if not is_silence(turn)
    )


def _joined(utterances: list[object], persona: tuple[str, ...]) -> list[Dialogue]:
    """Put the utterances of one dialogue together again.

    Each history should be the one before it, the reply to that, and new turns. Where it is not,
    another dialogue begins.
    """
    found: list[Dialogue] = []
    past: tuple[str, ...] = ()  # all turns of the last dialogue found
    for place, utterance in enumerate(utterances):
        history, candidates = _utterance(utterance, f"utterances[{place}]")
        reply = candidates[-1]
        # A single candidate is the reply alone: nothing that it was chosen from.
        message = Message("assistant", reply, candidates if len(candidates) > 1 else ())
        if found and len(history) > len(past) and history[: len(past)] == past:
            earlier, new = found.pop().messages, history[len(past) :]
        else:
            earlier, new = (), history
        found.append(Dialogue((*earlier, *_alternating(new, last="user"), message), persona))
        past = (*history, reply)
    return found or [Dialogue(persona=persona)]


def _utterance(data: object, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not isinstance(data, dict) or not {"history", "candidates"} <= data.keys():
        raise DataError(f'{where}: expected {{"history", "candidates"}}, got {shown(data)}')
    candidates = texts(data["candidates"], f"{where}.candidates")
    if not candidates:
        raise DataError(f"{where}.candidates: expected texts, the right reply last, got none")
    return texts(data["history"], f"{where}.history"), candidates
