"""rejoinder chat: talk with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts.types import NonNegativeInt, PositiveInt

from rejoinder.cli.application import Flag, How, Json, Persona, app, given


@app.command
def chat(
    *,
    model: str = "persona-poly",
    agent: Literal["retrieve", "rerank", "generate", "hint", "choose"] | None = None,
    candidates: str | None = None,
    index: Path | None = None,
    rerank: str | None = None,
    retriever: str | None = None,
    best_of: PositiveInt | None = None,
    persona: Persona = None,
    persona_file: Path | None = None,
    no_persona: Flag = False,
    persona_weight: float = 0.7,
    max_history: NonNegativeInt = 0,
    min_confidence: float = 0.0,
    fallback: str | None = None,
    repeat: Flag = False,
    how: How = None,
    once: str | None = None,
    json: Json = False,
    device: str = "cpu",
) -> None:
    """Talk with a model that picks its replies out of many candidates, or writes them.

    Parameters
    ----------
    model
        A name of `rejoinder zoo`, a folder, or owner/name of the Hugging Face hub.
    agent
        retrieve and rerank (of a ranker), generate, hint (write with retrieved replies in view) or
        choose (a ranker chooses among written and retrieved ones) of a generator.
    candidates
        A file of replies or dialogues, `sample` (the default), or `convai2`.
    index
        A folder that `rejoinder index build` made, instead of candidates.
    rerank
        A second model, such as persona-cross, that orders the best 20 again, or chooses among
        what was written.
    retriever
        The ranker that hint and choose search with; persona-poly if not given.
    best_of
        Write so many replies and say the best; 5 of choose, else 1.
    persona
        A sentence about who the model is; give it several times. A sample one if not given.
    persona_file
        A file of such sentences, one a line.
    no_persona
        Be nobody in particular.
    persona_weight
        How much of the choice knows the persona: 1 all, 0 none.
    max_history
        Newest messages to read; 0 = as many as the model was made for.
    min_confidence
        Below this probability the fallback text is said instead.
    fallback
        What is said then.
    repeat
        Let it say the same reply twice.
    device
        Where to compute, such as cuda.
    once
        Answer this one message and stop.
    json
        With --once: print reply, confidence and candidates as one JSON object.
    """
    from rejoinder import talk

    talk.chat(
        talk.Wishes(
            model=model,
            candidates=candidates,
            index=index,
            rerank=rerank,
            persona=tuple(persona or ()),
            persona_file=persona_file,
            no_persona=no_persona,
            max_history=max_history,
            min_confidence=min_confidence,
            fallback=fallback,
            repeat=repeat,
            persona_weight=persona_weight,
            agent=agent,
            retriever=retriever,
            best_of=best_of,
            how=how if set(given(how)) - {"seed"} else None,
            seed=given(how).get("seed"),
            device=device,
        ),
        once_text=once,
        json=json,
    )
