"""ParlAI text with numbers."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from rejoinder.data import read
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message, examples

SHARED = Path(__file__).parents[3] / "shared" / "data"


def user(text: str) -> Message:
    return Message("user", text)


def reply(text: str, candidates: Sequence[str] = (), alternatives: Sequence[str] = ()) -> Message:
    return Message("assistant", text, tuple(candidates), tuple(alternatives))


def parsed(tmp_path: Path, *lines: str, bad: list[DataError] | None = None) -> list[Dialogue]:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines) + "\n")
    return list(read(path, "parlai", bad=bad))


def test_personas_turns_and_a_second_dialogue(tmp_path: Path) -> None:
    assert parsed(
        tmp_path,
        "1 your persona: i like tea.",
        "2 partner's persona: i like coffee.",
        "3 hi there\thello",
        "4 bye\tsee you",
        "",
        "1 hi again\thello again",
    ) == [
        Dialogue(
            (user("hi there"), reply("hello"), user("bye"), reply("see you")),
            ("i like tea.",),
            ("i like coffee.",),
        ),
        Dialogue((user("hi again"), reply("hello again"))),
    ]


def test_a_number_that_is_not_above_the_last_opens_a_dialogue(tmp_path: Path) -> None:
    found = parsed(tmp_path, "3 a\tb", "7 c\td", "7 e\tf", "2 g\th", "0 i\tj", "1 k\tl")
    assert [len(dialogue.messages) for dialogue in found] == [4, 2, 2, 4]


def test_the_first_of_several_replies_and_the_candidates(tmp_path: Path) -> None:
    (found,) = parsed(tmp_path, "1 hi\thello|hey| yo\t\tno|hello| maybe ")
    assert found.messages[1] == reply("hello", ["no", "hello", " maybe"], ["hey", " yo"])


@pytest.mark.parametrize("reward", ["", "1", "-0.5", " 2e3 "])
def test_a_reward_is_passed_over(tmp_path: Path, reward: str) -> None:
    (found,) = parsed(tmp_path, f"1 hi\thello\t{reward}\ta|b")
    assert found.messages[1] == reply("hello", ["a", "b"])


def test_lines_without_a_reply_belong_to_the_next_message(tmp_path: Path) -> None:
    (found,) = parsed(tmp_path, "1 once upon a time", r"2 in\na wood", "3 who was it ?\ta wolf")
    assert found.messages == (user("once upon a time\nin\na wood\nwho was it ?"), reply("a wolf"))


def test_a_text_that_gets_no_reply_is_the_last_message(tmp_path: Path) -> None:
    found = parsed(tmp_path, "1 hi\thello", "2 anyone ?", "1 your persona: i am alone.")
    assert found[0].messages[-1] == user("anyone ?")
    assert found[1] == Dialogue((), ("i am alone.",))


def test_a_persona_may_come_late_and_again(tmp_path: Path) -> None:
    (found,) = parsed(
        tmp_path,
        "1 your persona: a.",
        "2 your persona: a.",
        "3 hi\thello",
        r"4 your persona: a.\nyour persona: b.\nwhat now ?" + "\ttea",
    )
    assert found.persona == ("a.", "a.", "b.")  # said twice at the start: kept as it is
    assert found.messages[2] == user("what now ?")


@pytest.mark.parametrize("silence", ["__SILENCE__", "__ SILENCE __", "__silence__"])
def test_silence_is_no_message(tmp_path: Path, silence: str) -> None:
    (found,) = parsed(
        tmp_path, "1 your persona: a.", f"2 {silence}\thi", "3 yes\tgood", f"4 {silence}\twell ?"
    )
    assert found.messages == (reply("hi"), user("yes"), reply("good"), reply("well ?"))


def test_no_text_is_no_message(tmp_path: Path) -> None:
    assert parsed(tmp_path, "1 \thi there") == [Dialogue((reply("hi there"),))]


def test_a_line_that_is_only_a_number_is_its_text(tmp_path: Path) -> None:
    assert parsed(tmp_path, "1", "2 what ?\tone")[0].messages == (user("1\nwhat ?"), reply("one"))


def test_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1 hi\thello\r\n2 bye\tsee you\r\n")
    assert [m.content for d in read(tmp_path / "a") for m in d.messages] == [
        "hi",
        "hello",
        "bye",
        "see you",
    ]


WRONG = {
    "hello\tworld": "expected 'NUMBER text<TAB>reply.*, got 'hello.tworld'; begin each line with",
    "-1 hi\thello": "got '-1 hi",
    "1.5 hi\thello": r"got '1\.5 hi",
    "2 a\tb\t\tc|d\te": "5 columns, expected at most 4",
    "2 a\tb\tc|d": "column 3 is 'c|d', expected a reward .*; candidates belong in column 4",
    "2 a\t\t\tc|d": "candidates without a reply; expected the right reply in column 2",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=rf"a\.txt:2: .*{WRONG[line]}"):
        parsed(tmp_path, "1 hi\thello", line)
    bad: list[DataError] = []
    found = parsed(tmp_path, "1 hi\thello", line, "3 bye\tsee you", bad=bad)
    assert [m.content for m in found[0].messages] == ["hi", "hello", "bye", "see you"]
    assert len(bad) == 1


def test_a_bad_first_line_still_opens_a_dialogue(tmp_path: Path) -> None:
    bad: list[DataError] = []
    found = parsed(tmp_path, "1 a\tb", "1 c\td\tno", "2 e\tf", "oops", "1 g\th", bad=bad)
    assert [len(dialogue.messages) for dialogue in found] == [2, 2, 2]
    assert len(bad) == 2


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    path.write_text(("1 your persona: a.\n2 hi " + "x" * 200 + "\thello|hey\t\ta|b|c\n") * 12_000)
    tracemalloc.start()
    count = sum(1 for _ in read(path, "parlai"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 12_000
    assert peak < 1 << 20


@pytest.mark.skipif(not SHARED.exists(), reason="the data of the workplace is not here")
@pytest.mark.parametrize(
    ("name", "dialogues", "replies", "openers", "candidates"),
    [
        ("convai2_train_part.txt.xz", 2355, 17315, 1000, 0),
        ("personachat_dev_20cands.txt.xz", 968, 7512, 0, 20),
    ],
)
def test_real_files(name: str, dialogues: int, replies: int, openers: int, candidates: int) -> None:
    found = list(read(SHARED / name))
    assert len(found) == dialogues
    assert sum(dialogue.messages[0].role == "assistant" for dialogue in found) == openers
    each = list(examples(found))
    assert len(each) == replies
    assert {len(example.candidates) for example in each} == {candidates}
    assert all(example.context.persona for example in each)
    if candidates:
        assert all(example.candidates[-1] == example.reply for example in each)
