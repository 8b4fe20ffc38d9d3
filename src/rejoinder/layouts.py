"""From a dialogue to what a language model reads and writes on: two layouts.

`speakers` is TransferTransfo's (Wolf et al. 2019): five tokens of our own say where the persona
begins, who speaks, and where a reply ends. The model reads every token together with its type, the
speaker that came last (`Generator.types`).

    token  <bos> i love tea .  <speaker2> hi , how are you ?  <speaker1> fine , and you ? <eos>
    type   <speaker1> ...      <speaker2> ...                 <speaker1> ...

`template` is the base's own chat template, with the persona as system message, for models that
were taught to follow one. Either way system messages stand with the persona, the last token of a
context opens the reply, user text never becomes a special token, and what is too long loses its
oldest messages first.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

from rejoinder.errors import ConfigError
from rejoinder.schema import Dialogue, Message
from rejoinder.spacing import forgets, joined, settled
from rejoinder.text import TextFormat, fit
from rejoinder.tokens import Pieces

SPARE = re.compile(r"\[unused\d+\]")  # places that BERT's vocabulary keeps free


class Layout(ABC):
    """How a dialogue is laid out for a language model.

    opening: the token behind which a reply begins, the last of every context. stop: tokens that end
    a reply. never: tokens that are neither text nor an end.
    """

    opening: int
    stop: frozenset[int]
    never: frozenset[int]
    pad = 0  # never seen, so any token will do

    def __init__(self, tokenizer: Tokenizer, style: TextFormat) -> None:
        self.pieces = Pieces(tokenizer)
        self.tokenizer = tokenizer
        self.style = style
        self.forgets = forgets(tokenizer)

    @abstractmethod
    def context(self, dialogue: Dialogue) -> list[int]:
        """At most `max_context` tokens that stand before a reply."""

    @abstractmethod
    def reply(self, text: str) -> list[int]:
        """A reply and its end, together at most `max_reply` tokens; a long one keeps its start."""

    def text(self, ids: Sequence[int]) -> str:
        """What was written, words and points joined as people write them."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()
        return joined(text) if self.forgets else text

    def settled(self, text: str) -> str:
        """The start of what was written that no further token changes."""
        return settled(text) if self.forgets else text

    def contexts(self, dialogues: Sequence[Dialogue]) -> list[list[int]]:
        """Rows to read before replies: contexts without the token that opens a reply."""
        return [self.context(dialogue)[:-1] for dialogue in dialogues]

    def candidates(self, replies: Sequence[str]) -> list[list[int]]:
        """Rows to read behind them: that token, the reply, and its end."""
        return [[self.opening, *self.reply(text)] for text in replies]


class Speakers(Layout):
    """TransferTransfo's layout. `ids` are those of the tokens in SPEAKERS, in that order.

    Of a model with more `rows` of word vectors than the tokenizer has tokens, the rest is never
    written.

    The assistant is speaker 1 and the user speaker 2, whatever the number of turns. (The first code
    counted types from the start, which gives the two each other's after an even number.)
    """

    def __init__(
        self, tokenizer: Tokenizer, ids: Sequence[int], style: TextFormat, rows: int = 0
    ) -> None:
        super().__init__(tokenizer, style)
        self.ids = tuple(ids)
        self.bos, self.eos, self.assistant, self.user, self.pad = self.ids
        self.opening = self.assistant
        self.stop = frozenset({self.eos, self.assistant, self.user})
        special = tokenizer.get_added_tokens_decoder()
        own = {i for i, token in special.items() if token.special}
        spare = {i for text, i in tokenizer.get_vocab().items() if SPARE.fullmatch(text)}
        own |= set(range(tokenizer.get_vocab_size(), rows))
        self.never = frozenset({self.bos, self.pad} | own | spare) - self.stop

    def context(self, dialogue: Dialogue) -> list[int]:
        """<bos> persona, then every message behind its speaker, and speaker 1."""
        said = [m for m in dialogue.messages if m.role != "system"][-self.style.max_history :]
        about = [*dialogue.persona, *(m.content for m in dialogue.messages if m.role == "system")]
        ids = self.pieces.ids([*about, *(m.content for m in said)])
        room = self.style.max_context - 2
        half = room // 2 - 1  # of a message that is longer than that, its end is read
        turns = [
            [who, *text[max(0, len(text) - half) :]]
            for who, text in zip(map(self._speaker, said), ids[len(about) :], strict=True)
        ]
        return [self.bos, *fit(ids[: len(about)], turns, room), self.assistant]

    def reply(self, text: str) -> list[int]:
        """The reply's tokens and <eos>."""
        return [*self.pieces.ids([text])[0][: self.style.max_reply - 1], self.eos]

    def _speaker(self, message: Message) -> int:
        return self.assistant if message.role == "assistant" else self.user


Render = Callable[[list[dict[str, str]], bool], str]
MARK = re.compile("\ue000(\\d+)\ue001")  # stands for a text while a template is filled in


class Template(Layout):
    """The chat template of an instruct model.

    `render` fills it in: messages of role and content, and whether the assistant is to go on. Where
    the template knows no system message, the persona opens the first user message. Texts are
    tokenized apart from the template, so that nobody can write a mark of the template into them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        render: Render,
        style: TextFormat,
        *,
        eos: int,
    ) -> None:
        super().__init__(tokenizer, style)
        self.marks = Tokenizer.from_str(tokenizer.to_str())  # finds the template's own tokens
        self.marks.encode_special_tokens = False
        self.render = render
        special = tokenizer.get_added_tokens_decoder()
        own = {i for i, token in special.items() if token.special}
        closing = self._closing()
        ends = [i for i in closing if i in own]
        self.close = closing[: closing.index(ends[0]) + 1] if ends else [eos]
        self.stop = frozenset({eos, self.close[-1]})
        self.never = frozenset(own) - self.stop
        self.opening = self._filled([Message("user", "a")])[-1]

    def context(self, dialogue: Dialogue) -> list[int]:
        """The template up to where the assistant begins; the oldest messages go, the persona stays.

        Raises ConfigError where the template takes no dialogue like this one.
        """
        said = [m for m in dialogue.messages if m.role != "system"]
        told = [m.content for m in dialogue.messages if m.role == "system"]
        newest = said[-self.style.max_history :]
        messages = [Message(m.role, self._end(m.content)) for m in newest]
        persona = [*dialogue.persona, *told]
        room = self.style.max_context
        while len(ids := self._laid_out(persona, messages)) > room:
            if len(messages) > 1:
                messages = messages[1:]
            elif persona:
                persona = persona[:-1]
            else:  # the template alone is longer than half of the room
                return ids[len(ids) - room :]
        return ids

    def reply(self, text: str) -> list[int]:
        """The reply's tokens and what closes a message of the assistant."""
        return [*self.pieces.ids([text])[0][: self.style.max_reply - len(self.close)], *self.close]

    def _laid_out(self, persona: Sequence[str], messages: Sequence[Message]) -> list[int]:
        told = [Message("system", " ".join(persona))] if persona else []
        first = [] if messages and messages[0].role == "user" else [Message("user", "")]
        merged = [Message("user", told[0].content)] if told else first
        ways = [  # what templates take, most natural first
            [*told, *(messages or first)],
            [*told, *first, *messages],  # a user has to begin
            [*merged, *messages],  # no system message is known
        ]
        for number, way in enumerate(ways):
            try:
                return self._filled(_alternating(way))
            except ConfigError:
                if number == len(ways) - 1:
                    raise
        raise AssertionError("one of the ways was taken or refused")

    def _end(self, text: str) -> str:
        """A text, or of one that is longer than half of the room, its end."""
        ids, half = self.pieces.ids([text])[0], self.style.max_context // 2
        return text if len(ids) <= half else self.text(ids[len(ids) - half :])

    def _filled(self, messages: Sequence[Message]) -> list[int]:
        parts = MARK.split(self._text([message.role for message in messages], going_on=True))
        said = self.pieces.ids([message.content for message in messages])
        ids: list[int] = []
        for place, part in enumerate(parts):  # template, number of a text, template ...
            if place % 2:
                ids += said[int(part)]
            elif part:
                ids += self.marks.encode(part, add_special_tokens=False).ids
        return ids

    def _closing(self) -> list[int]:
        """What the template puts behind a message of the assistant."""
        whole = self._text(["user", "assistant"], going_on=False)
        return self.marks.encode(MARK.split(whole)[-1], add_special_tokens=False).ids

    def _text(self, roles: Sequence[str], *, going_on: bool) -> str:
        filled = [
            {"role": role, "content": f"\ue000{number}\ue001"} for number, role in enumerate(roles)
        ]
        try:
            return self.render(filled, going_on)
        except Exception as error:  # templates raise what they like
            reason = str(error).split("\n")[0][:160]
            raise ConfigError(
                f"the base's chat template refuses a dialogue of {', '.join(roles)} ({reason}); "
                "take layout = speakers"
            ) from None


def _alternating(messages: Sequence[Message]) -> list[Message]:
    """Neighbours of one role as one message, which is what templates expect."""
    found: list[Message] = []
    for message in messages:
        if found and found[-1].role == message.role:
            both = f"{found[-1].content}\n{message.content}"
            found[-1] = Message(message.role, both)
        else:
            found.append(message)
    return found
