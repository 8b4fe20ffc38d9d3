"""From the wishes of `rejoinder chat` to a conversation: model, candidates, persona, terminal."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

from rejoinder import candidates, tasks
from rejoinder.agents import RetrieveAgent
from rejoinder.chat import ChatOptions, once, run_chat
from rejoinder.data import read
from rejoinder.errors import ConfigError, DataError
from rejoinder.progress import Bar


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked for; None and empty mean the default."""

    model: str = "persona-poly"
    candidates: str | None = None
    index: Path | None = None
    rerank: str | None = None
    persona: tuple[str, ...] = ()
    persona_file: Path | None = None
    no_persona: bool = False
    max_history: int = 0  # newest messages to read; 0 = all
    min_confidence: float = 0.0  # probability
    fallback: str | None = None
    repeat: bool = False
    seed: int | None = None
    device: str = "cpu"


def chat(wishes: Wishes, once_text: str | None = None, json: bool = False) -> None:
    """Talk in the terminal until the user leaves, or answer one message."""
    if json and once_text is None:
        raise ConfigError("--json prints one reply; give the message with --once TEXT")
    persona = persona_of(wishes)  # first, so that a wrong file is told before the model loads
    agent = agent_of(wishes)
    options = ChatOptions(
        persona=persona,
        min_confidence=wishes.min_confidence,
        title=f"{wishes.model}, {len(agent.index.texts):,} candidates"
        + (f", reranked by {wishes.rerank}" if wishes.rerank else ""),
        **({"fallback": wishes.fallback} if wishes.fallback else {}),
    )
    if once_text is None:
        run_chat(agent, options)
        return
    sys.stdout.write(once(agent, options, once_text, json) + "\n")


def agent_of(wishes: Wishes) -> RetrieveAgent:
    """The agent that answers, its candidates encoded or read from the cache."""
    with Bar("candidates encoded") as bar:
        return tasks.make_agent(
            wishes.model,
            candidates=wishes.candidates,
            index=wishes.index,
            rerank=wishes.rerank,
            max_history=wishes.max_history,
            repeat=wishes.repeat,
            device=wishes.device,
            progress=bar,
        )


def persona_of(wishes: Wishes) -> tuple[str, ...]:
    """The persona that was given, or a sample one."""
    given = [bool(wishes.persona), wishes.persona_file is not None, wishes.no_persona]
    if sum(given) > 1:
        raise ConfigError("--persona, --persona-file and --no-persona exclude each other")
    if wishes.no_persona:
        return ()
    if wishes.persona:
        return wishes.persona
    if wishes.persona_file:
        return read_persona(wishes.persona_file)
    return sample_persona(wishes.seed)


def read_persona(file: Path) -> tuple[str, ...]:
    """One sentence a line; `your persona:` before it is allowed."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {error}; expected a text file, one sentence a line") from None
    found = tuple(line.removeprefix("your persona:").strip() for line in lines if line.strip())
    if not found:
        raise DataError(f"{file}: empty; expected a persona, one sentence a line")
    return found


def sample_persona(seed: int | None = None) -> tuple[str, ...]:
    """A persona of the sample corpus: any one, or that of a seed."""
    personas = [
        persona
        for dialogue in read(candidates.SAMPLE / "train.jsonl")
        for persona in (dialogue.persona, dialogue.partner_persona)
    ]
    return random.Random(seed).choice(personas)
