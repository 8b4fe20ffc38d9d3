"""Make agents: from names of models, files and wishes to what answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from rejoinder import zoo
from rejoinder.agents import Agent, ChooseAgent, GenerateAgent, HintedAgent, RetrieveAgent
from rejoinder.decoding import Decoding
from rejoinder.errors import ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.index import Index
from rejoinder.ranker import TextRanker
from rejoinder.tasks.answering import cached_index
from rejoinder.weighing import PERSONA_WEIGHT, check_weight

Progress = Callable[[int, int], None]
Name = Literal["retrieve", "rerank", "generate", "hint", "choose"]
WRITING = ("generate", "hint", "choose")  # agents that need a generator
SEVERAL = 5  # replies that `choose` has written


def make_agent(
    model: str | Path = zoo.DEFAULT,
    *,
    agent: Name | None = None,
    candidates: str | Path | None = None,
    index: Path | None = None,
    rerank: str | Path | None = None,
    retriever: str | Path | None = None,
    how: Decoding | None = None,
    best_of: int | None = None,
    max_history: int = 0,
    repeat: bool = False,
    persona_weight: float = PERSONA_WEIGHT,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Agent:
    """The agent of a name; without one a generator writes and a ranker retrieves.

    retrieve answers with candidates of a file, a known set (`sample` if none), or an index; rerank
    orders the best again by the model `rerank`. generate writes as `how` says, and says the best of
    `best_of` by `rerank` or by itself. hint and choose do both, retrieving with the model
    `retriever`; of choose `rerank` chooses, or the retriever. Raises ConfigError for what does not
    go together.
    """
    check_weight(persona_weight)  # now, not after many candidates were encoded
    writes = zoo.writes(model)
    name: Name = agent or ("generate" if writes else "rerank" if rerank else "retrieve")
    _check(name, model, writes, how is not None or best_of is not None, rerank, retriever)
    _check_search(name, candidates, index)
    found = None
    if name != "generate":
        searches = (retriever or zoo.DEFAULT) if writes else model
        found = _index(searches, candidates, index, device, progress)
    second = zoo.load_ranker(rerank, device) if rerank else None
    _read_on(max_history, second, found[1] if found else None)
    retrieves = None
    if found:
        retrieves = RetrieveAgent(
            *found,
            reranker=None if writes else second,
            max_history=max_history,
            repeat=repeat,
            persona_weight=persona_weight,
        )
    if retrieves and not writes:
        return retrieves
    writer = GenerateAgent(
        zoo.load_generator(model, device),
        how,
        best_of=best_of or (SEVERAL if name == "choose" and _draws(how) else 1),
        chooser=second,
        max_history=max_history,
        repeat=repeat,
    )
    _read_on(max_history, writer.generator)
    if not retrieves:
        return writer
    if name == "hint":
        return HintedAgent(writer, retrieves)
    return ChooseAgent(writer, retrieves, second, persona_weight=persona_weight)


def _read_on(max_history: int, *models: TextRanker | TextGenerator | None) -> None:
    """Let models read so many messages, if made for fewer; the same tokens still have to do."""
    for model in models:
        if model is not None and 0 < model.tokens.style.max_history < max_history:
            model.tokens.style = replace(model.tokens.style, max_history=max_history)


def _check(
    name: Name,
    model: str | Path,
    writes: bool,
    wishes: bool,
    rerank: str | Path | None,
    retriever: str | Path | None,
) -> None:
    """Raise ConfigError for an agent that this model cannot be, or that needs another one."""
    if name not in get_args(Name):
        raise ConfigError(f"agent is {name!r}; known: {', '.join(get_args(Name))}")
    if name in WRITING and not writes:
        raise ConfigError(
            f"--agent {name} writes replies, but {model} chooses among given ones; name a "
            "generator, such as --model persona-generator"
        )
    if name not in WRITING and writes:
        raise ConfigError(
            f"--agent {name} chooses among given replies, but {model} writes them; name a ranker, "
            f"such as --model {zoo.DEFAULT}, or take one of {', '.join(WRITING)}"
        )
    if name == "rerank" and not rerank:
        raise ConfigError("--agent rerank orders the best again; say with what: --rerank MODEL")
    if wishes and not writes:
        raise ConfigError(
            f"{model} chooses among given replies, so there is no way of writing to set; leave "
            "those options out, or name a generator, such as --model persona-generator"
        )
    if retriever and name not in ("hint", "choose"):
        raise ConfigError(
            f"--retriever is what --agent hint and choose search with, but this is {name}; leave "
            "it out, or take one of them"
        )


def _draws(how: Decoding | None) -> bool:
    """Whether writing again gives another reply."""
    return how is None or not (how.greedy or how.beams > 1)


def _check_search(name: Name, candidates: str | Path | None, index: Path | None) -> None:
    if name == "generate" and (candidates or index):
        raise ConfigError(
            "--agent generate searches no candidates; leave --candidates and --index out, or take "
            "--agent choose or hint"
        )


def _index(
    model: str | Path,
    candidates: str | Path | None,
    index: Path | None,
    device: str,
    progress: Progress | None,
) -> tuple[Index, TextRanker]:
    """What is searched, and with what."""
    if candidates and index:
        raise ConfigError("--candidates and --index exclude each other; give one of them")
    ranker = zoo.load_ranker(model, device)
    if ranker.is_cross:
        raise ConfigError(
            f"{model} is a cross-encoder: too slow to search with; search with {zoo.DEFAULT} and "
            f"give it as --rerank {model}"
        )
    if index:
        return Index.load(index, ranker), ranker
    return cached_index([candidates or "sample"], ranker, progress=progress), ranker
