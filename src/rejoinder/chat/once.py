"""One message, one reply: for scripts."""

from __future__ import annotations

import json
import math

from rejoinder.chat.session import Answer, ChatOptions, Responder, Session
from rejoinder.errors import ConfigError


def once(agent: Responder, options: ChatOptions, text: str, as_json: bool = False) -> str:
    """Answer one message, which may bring a persona as in a chat: the reply, or a JSON object.

    The object has "reply", "confidence" (null if unknown) and its "meaning", "persona",
    "candidates" (of "text", "score", and "origin" where there are several, best first), "fallback"
    (was it said?) and "seconds".
    """
    session = Session(agent, options)
    answer = session.say(text)
    if answer is None:
        raise ConfigError(f"no message in {text[:60]!r}; expected one, after the persona if any")
    if not as_json:
        return answer.said
    return json.dumps(_as_json(answer, session.dialogue.persona), ensure_ascii=False)


def _as_json(answer: Answer, persona: tuple[str, ...]) -> dict[str, object]:
    return {
        "reply": answer.said,
        "confidence": _number(answer.reply.confidence),
        **({"meaning": answer.reply.meaning} if answer.reply.meaning else {}),
        "persona": list(persona),
        "candidates": [
            {
                "text": scored.text,
                "score": _number(scored.score),
                **({"origin": scored.origin} if scored.origin else {}),
            }
            for scored in answer.reply.considered
        ],
        "fallback": answer.fallback,
        "seconds": round(answer.seconds, 6),
    }


def _number(value: float | None) -> float | None:
    """Give a number that JSON has; it has no infinity."""
    return value if value is not None and math.isfinite(value) else None
