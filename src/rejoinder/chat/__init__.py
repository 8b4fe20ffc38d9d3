"""Talk to an agent in a terminal, through a pipe, or with a single message.

Read `session` first: what a conversation remembers. `commands` says what a typed line does,
`terminal` reads lines and shows what came of them, `once` answers one message. An agent is anything
that has `respond`; this package knows nothing else about it.
"""

from rejoinder.chat.once import once
from rejoinder.chat.session import Answer, ChatOptions, Responder, Session
from rejoinder.chat.terminal import run_chat

__all__ = ["Answer", "ChatOptions", "Responder", "Session", "once", "run_chat"]
