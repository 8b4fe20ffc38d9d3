"""From the wishes of `rejoinder chat` to a conversation: model, candidates, persona, terminal."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rejoinder import candidates, tasks, zoo
from rejoinder.agents import Agent, RetrieveAgent
from rejoinder.chat import ChatOptions, once, run_chat
from rejoinder.chat.persona import plain_lines
from rejoinder.data import read
from rejoinder.data.files import numbered_lines
from rejoinder.decoding import Decoding
from rejoinder.errors import ConfigError, DataError
from rejoinder.progress import Bar
from rejoinder.tasks.talking import Name
from rejoinder.weighing import PERSONA_WEIGHT


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
    persona_weight: float = PERSONA_WEIGHT  # share of the score that knows the persona, 0 to 1
    agent: Name | None = None
    retriever: str | None = None  # of agents that write and search
    best_of: int | None = None  # replies written to choose from
    how: Decoding | None = None  # replies are written; sampled as by default if None
    seed: int | None = None  # of the sample persona and of what is sampled; None = always another
    device: str = "cpu"


def chat(wishes: Wishes, once_text: str | None = None, json: bool = False) -> None:
    """Talk in the terminal until the user leaves, or answer one message."""
    if json and once_text is None:
        raise ConfigError("--json prints one reply; give the message with --once TEXT")
    options = ChatOptions(  # first, so that a wrong file or number is told before the model loads
        persona=persona_of(wishes),
        min_confidence=wishes.min_confidence,
        **({} if wishes.fallback is None else {"fallback": wishes.fallback}),
    )
    agent = agent_of(wishes)
    uncalibrated = isinstance(agent, RetrieveAgent) and agent.ranker.confidence is None
    if wishes.min_confidence and uncalibrated:
        raise ConfigError(
            f"--min-confidence is {wishes.min_confidence}, but {wishes.model} does not know how "
            f"sure it is; fit that first: rejoinder calibrate {wishes.model} DATA"
        )
    options = replace(options, title=title_of(wishes, agent))
    if once_text is None:
        run_chat(agent, options)
        return
    sys.stdout.write(once(agent, options, once_text, json) + "\n")


def title_of(wishes: Wishes, agent: Agent) -> str:
    """What answers, for people."""
    searches = agent if isinstance(agent, RetrieveAgent) else getattr(agent, "retriever", None)
    told = [wishes.model]
    if wishes.agent:
        told.append(f"agent {wishes.agent}")
    if isinstance(searches, RetrieveAgent):
        told.append(f"{len(searches.index.texts):,} candidates")
    if wishes.rerank:
        told.append(f"reranked by {wishes.rerank}")
    return ", ".join(told)


def agent_of(wishes: Wishes) -> Agent:
    """The agent that answers, its candidates encoded or read from the cache."""
    seed = random.randrange(2**31) if wishes.seed is None else wishes.seed
    how = wishes.how
    if how is not None or zoo.writes(wishes.model):
        how = replace(how or Decoding(), seed=seed)
    with Bar("candidates encoded") as bar:
        return tasks.make_agent(
            wishes.model,
            agent=wishes.agent,
            retriever=wishes.retriever,
            how=how,
            best_of=wishes.best_of,
            candidates=wishes.candidates,
            index=wishes.index,
            rerank=wishes.rerank,
            max_history=wishes.max_history,
            repeat=wishes.repeat,
            persona_weight=wishes.persona_weight,
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
        return tuple(one for text in wishes.persona for one in plain_lines(text))
    if wishes.persona_file:
        return read_persona(wishes.persona_file)
    return sample_persona(wishes.seed)


def read_persona(file: Path) -> tuple[str, ...]:
    """One sentence a line; `your persona:` before it is allowed."""
    found = tuple(one for _, line in numbered_lines(file) for one in plain_lines(line))
    if not found:
        raise DataError(f"{file}: only blank lines; expected a persona, one sentence a line")
    return found


def sample_persona(seed: int | None = None) -> tuple[str, ...]:
    """A persona of the sample corpus: any one, or that of a seed."""
    personas = [
        persona
        for dialogue in read(candidates.SAMPLE / "train.jsonl")
        for persona in (dialogue.persona, dialogue.partner_persona)
    ]
    return random.Random(seed).choice(personas)
