"""A small real agent: of a few replies, the one that shares most words with the message.

`python overlap.py` chats with it in a terminal; test_pty.py does that.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rejoinder.chat import ChatOptions, run_chat
from rejoinder.errors import RejoinderError
from rejoinder.schema import Dialogue, Reply, Scored

REPLIES = (
    "I love green tea.",
    "My two cats sleep all day.",
    "I show people round a museum.",
    "Hello, how are you?",
)


def words(text: str) -> set[str]:
    return set(text.lower().replace(".", " ").replace(",", " ").replace("?", " ").split())


@dataclass(frozen=True)
class Overlap:
    """Confidence is the share of the message's words in the best reply."""

    replies: tuple[str, ...] = REPLIES
    calibrated: bool = True

    def respond(self, dialogue: Dialogue) -> Reply:
        asked = words(dialogue.messages[-1].content)
        if "fail" in asked:
            raise RejoinderError("index: is stale; build it again")
        if "wait" in asked:
            time.sleep(60)
        known = words(" ".join(dialogue.persona))
        scored = sorted(
            (
                Scored(reply, len(words(reply) & asked) + 0.1 * len(words(reply) & known))
                for reply in self.replies
            ),
            key=lambda candidate: -candidate.score,
        )
        sure = len(words(scored[0].text) & asked) / max(1, len(asked))
        return Reply(scored[0].text, sure if self.calibrated else None, tuple(scored))


if __name__ == "__main__":
    import fcntl
    import signal
    import termios

    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches us while an answer is made
    run_chat(Overlap(), ChatOptions(persona=("I like tea.",), title="overlap, 4 candidates"))
    sys.stderr.write("left well\n")
