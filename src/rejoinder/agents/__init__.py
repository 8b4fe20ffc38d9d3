"""Who answers: an agent takes a dialogue and gives a reply; chat and server know nothing else.

`RetrieveAgent` says the best of many replies, `GenerateAgent` writes one, `HintedAgent` writes with
retrieved replies before its eyes, and `ChooseAgent` lets a ranker choose among written and
retrieved ones. Whatever they do, none says a thing that was said already, if it has another.
"""

from __future__ import annotations

from rejoinder.agents.choose import ChooseAgent
from rejoinder.agents.generate import GenerateAgent
from rejoinder.agents.hinted import HintedAgent
from rejoinder.agents.protocol import SHOWN, Agent
from rejoinder.agents.retrieve import RetrieveAgent

__all__ = [
    "SHOWN",
    "Agent",
    "ChooseAgent",
    "GenerateAgent",
    "HintedAgent",
    "RetrieveAgent",
]
