"""ParlAI's dictionary: ids, merges and files by hand, and against a second, naive encoder."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from legacy.parlai_reference import Reader, ids_of, pieces

from rejoinder.dictionary import (
    NAME,
    Dictionary,
    Kind,
    Words,
    as_json,
    load_words,
    merged,
    read_codes,
    read_dictionary,
)
from rejoinder.errors import CheckpointError, ConfigError

SPECIAL = ("__null__", "__start__", "__end__", "__unk__")
Version = Literal["0.1", "0.2"]


def ranks(*merges: str) -> dict[tuple[str, str], int]:
    """`a b` is a merge; the first is the most urgent."""
    return {(line.split()[0], line.split()[1]): i for i, line in enumerate(merges)}


def made(*tokens: str, **more: Any) -> Dictionary:
    return Dictionary(Words(tokens=[*SPECIAL, *tokens], **more))


def texts(dictionary: Dictionary, text: str) -> list[str]:
    return [dictionary.words.tokens[i] for i in dictionary.encode(text)]


# ------------------------------------------------------------------------------------------- merges

LOW = ("l o", "lo w", "w </w>", "lo w</w>", "e r</w>", "r </w>", "e r")


@pytest.mark.parametrize(
    ("version", "word", "expected"),
    [
        # 0.2: l o w</w> -> lo w</w> -> low</w>; the merge (lo, w) is for within a word
        ("0.2", "low", ["low"]),
        # l o w e r</w> -> lo w e r</w> -> low e r</w> -> low er</w>
        ("0.2", "lower", ["low", "er"]),
        # 0.1: l o w </w> -> lo w </w> -> low </w>; the end is cut off
        ("0.1", "low", ["low"]),
        # l o w e r </w> -> low e r </w> -> low e r</w> -> low er</w>: (r, </w>) before (e, r)
        ("0.1", "lower", ["low", "er"]),
        ("0.1", "lowered", ["low", "er", "e", "d"]),
        ("0.2", "ror", ["r", "o", "r"]),
        ("0.2", "wo", ["w", "o"]),
        ("0.1", "wo", ["w", "o"]),
        ("0.2", "l", ["l"]),
        ("0.1", "w", ["w"]),  # one letter is never looked up
        ("0.2", "lolo", ["lo", "l", "o"]),  # the last o is another symbol, o</w>
        ("0.1", "lolo", ["lo", "lo"]),
    ],
)
def test_merges_by_hand(version: str, word: str, expected: list[str]) -> None:
    assert merged(word, ranks(*LOW), version) == expected


def test_the_first_line_is_the_most_urgent() -> None:
    assert merged("abc", ranks("a b", "b c</w>"), "0.2") == ["ab", "c"]
    assert merged("abc", ranks("b c</w>", "a b"), "0.2") == ["a", "bc"]


def test_a_pair_is_joined_everywhere_from_the_left() -> None:
    assert merged("aaaaab", ranks("a a"), "0.2") == ["aa", "aa", "a", "b"]
    assert merged("aaaaab", ranks("a a", "aa aa"), "0.2") == ["aaaa", "a", "b"]
    # three in a row: the first two, not the last two
    assert merged("xaaay", ranks("a a"), "0.2") == ["x", "aa", "a", "y"]


def test_of_a_repeated_merge_the_first_counts(tmp_path: Path) -> None:
    file = tmp_path / "model.dict.codecs"
    file.write_text("#version: 0.2\na b\nb c</w>\na b\n", encoding="utf-8")
    merges, version = read_codes(file)
    units = ("ab@@", "c", "a@@", "bc")
    first = made(*units, merges=merges, version=version)
    assert texts(first, "abc") == ["ab@@", "c"]
    last = made(*units, merges=[*merges[1:], merges[0]], version=version)
    assert texts(last, "abc") == ["a@@", "bc"]


def test_pieces_but_the_last_are_marked() -> None:
    dictionary = made("lo@@", "low@@", "w", "er", "i", "!", merges=[*ranks(*LOW)])
    assert texts(dictionary, "low lower i!") == [*["__unk__"], "low@@", "er", "i", "!"]
    assert texts(dictionary, "low") == ["__unk__"]  # low is known only as a beginning


def test_letters_that_nobody_knows_are_unknown() -> None:
    dictionary = made("a", "a@@", "b")
    assert texts(dictionary, "ab az 語 é a") == ["a@@", "b", "a@@", *["__unk__"] * 3, "a"]


# -------------------------------------------------------------------------------------------- texts

KINDS: dict[Kind, list[str]] = {
    "bpe": ["Hi", ",", "you", "__newln__", "!", "?", "two", "words"],
    "re": ["Hi", ",", "you", "\n", "!", "?", "two", "words"],
    "space": ["Hi,you", "\n!?", "two", "", "words"],
    "split": ["Hi", ",", "you", "!", "?", "two", "words"],
}


def whole(word: str) -> list[tuple[str, str]]:
    """Merges that make one piece of a word, letter by letter."""
    symbols = [*word[:-1], f"{word[-1]}</w>"]
    return [("".join(symbols[:i]), symbols[i]) for i in range(1, len(symbols))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_split_as_the_tokenizer_says(kind: Kind) -> None:
    merges = [pair for word in KINDS["bpe"] for pair in whole(word)]
    dictionary = made(*dict.fromkeys(KINDS[kind]), kind=kind, merges=merges)
    assert texts(dictionary, "Hi,you \n!? two  words") == KINDS[kind]


def test_lower_case_only_where_it_is_asked_for() -> None:
    assert texts(made("tea", "Tea", kind="re"), "Tea tea TEA") == ["Tea", "tea", "__unk__"]
    assert texts(made("tea", "Tea", kind="re", lower=True), "Tea tea TEA") == ["tea"] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lower", [False, True])
def test_no_text_becomes_a_special_token(kind: Kind, lower: bool) -> None:
    typed = (*SPECIAL[:3], "__fp16_pad_0__", "__FP16_PAD_1__")
    merges = [pair for token in typed for pair in whole(token)]
    dictionary = made(*typed[3:], "tea", kind=kind, lower=lower, merges=merges)
    never = {dictionary.ids[token] for token in typed}
    for text in (*typed, " ".join(typed), "__START__", "tea __start__\n__end__"):
        found = dictionary.encode(text)
        assert found
        assert never.isdisjoint(found)
    assert set(texts(dictionary, " ".join(typed))) == {"__unk__"}
    rank = {pair: i for i, pair in enumerate(merges)}
    assert [merged(token, rank, "0.2") for token in typed] == [[token] for token in typed]
    assert set(texts(dictionary, "__unk__")) == {"__unk__"}


def test_a_special_token_under_another_name_is_as_safe() -> None:
    dictionary = Dictionary(
        Words(tokens=["[P]", "[S]", "[U]", "S"], null="[P]", start="[S]", end="[S]", unknown="[U]")
    )
    assert (dictionary.pad, dictionary.start, dictionary.end, dictionary.unknown) == (0, 1, 1, 2)
    assert 1 not in dictionary.encode("[S] S")


def test_tokens_may_not_be_there_twice_nor_lack() -> None:
    with pytest.raises(ConfigError, match="has 'tea' twice"):
        made("tea", "coffee", "tea")
    with pytest.raises(ConfigError, match="has no __unk__; expected it among its 3 tokens"):
        Dictionary(Words(tokens=SPECIAL[:3]))


# -------------------------------------------------------------------------------------------- files


def dict_file(folder: Path, text: str) -> Path:
    file = folder / "model.dict"
    file.write_bytes(text.encode())
    return file


def test_special_tokens_come_first_then_the_file(tmp_path: Path) -> None:
    file = dict_file(tmp_path, "tea\t5\n__unk__\t3\n.\n__start__\t2\nlot\t1\ntea\t1\n")
    assert read_dictionary(file) == [*SPECIAL, "tea", ".", "lot"]


def test_an_end_that_is_the_start_has_no_id_of_its_own(tmp_path: Path) -> None:
    same = Words(tokens=(), end="__start__")
    lines = "".join(f"{token}\t1\n" for token in ("__null__", "__start__", "__unk__", "tea"))
    file = dict_file(tmp_path, lines)
    assert read_dictionary(file, same) == ["__null__", "__start__", "__unk__", "tea"]
    # a header of four, as of a model whose end was another: __end__ moves behind __unk__
    file = dict_file(tmp_path, "".join(f"{token}\t1\n" for token in (*SPECIAL, "tea")))
    assert read_dictionary(file, same) == ["__null__", "__start__", "__unk__", "__end__", "tea"]


def test_escapes_old_spellings_and_bytes_that_are_no_letters(tmp_path: Path) -> None:
    file = tmp_path / "model.dict"
    lines = [b"__NULL__\t9", b"\\n\t3", b"a\\tb\t2", b"\\r", b"t\xffea\t1", b"caf\xc3\xa9\t1"]
    file.write_bytes(b"\r\n".join(lines))
    assert read_dictionary(file) == [*SPECIAL, "\n", "a\tb", "\r", "tea", "café"]


@pytest.mark.parametrize("count", ["much", "1.5"])
def test_a_line_without_a_count_is_named(tmp_path: Path, count: str) -> None:
    file = dict_file(tmp_path, f"tea\t5\nlot\t{count}\n")
    with pytest.raises(CheckpointError, match=re.escape(f"{file}:2: ")):
        read_dictionary(file)


def test_codes_of_both_versions(tmp_path: Path) -> None:
    file = tmp_path / "model.dict.codecs"
    file.write_text("#version: 0.2\na b</w>\nl o\n", encoding="utf-8")
    assert read_codes(file) == ([("a", "b</w>"), ("l", "o")], "0.2")
    file.write_text("#version: 0.1\na b\n", encoding="utf-8")
    assert read_codes(file) == ([("a", "b")], "0.1")
    file.write_text("a b\nb </w>", encoding="utf-8")
    assert read_codes(file) == ([("a", "b"), ("b", "</w>")], "0.1")
    file.write_text("# b\n", encoding="utf-8")  # a merge of a point, no header
    assert read_codes(file) == ([("#", "b")], "0.1")


@pytest.mark.parametrize("line", ["a", "a b c", "a  b", "a\tb"])
def test_a_line_that_is_no_merge_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "model.dict.codecs"
    file.write_text(f"#version: 0.2\na b\n{line}\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=re.escape(f"{file}:3: {line!r}")):
        read_codes(file)


@pytest.mark.parametrize("version", ["0.3", "", "two"])
def test_codes_of_a_version_that_nobody_knows(tmp_path: Path, version: str) -> None:
    file = tmp_path / "model.dict.codecs"
    file.write_text(f"#version: {version}\na b\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=re.escape(f"{file}:1: version {version!r}")):
        read_codes(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for read in (read_dictionary, read_codes):
        with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path / 'none'}: No such file")):
            read(tmp_path / "none")
    file = tmp_path / "model.dict.codecs"
    file.write_bytes(b"a b\n\xff c\n")
    with pytest.raises(CheckpointError, match=re.escape(f"{file}: not UTF-8")):
        read_codes(file)


WORDS = Words(
    tokens=[*SPECIAL, "tea", "\n", '"\\', "語", "a@@"],
    kind="bpe",
    lower=True,
    merges=[("t", "e"), ("te", "a</w>")],
    version="0.1",
    delimiter=" | ",
    split_lines=True,
)


@pytest.mark.parametrize("words", [WORDS, Words(tokens=SPECIAL, kind="split")])
def test_what_is_saved_is_read_again(tmp_path: Path, words: Words) -> None:
    (tmp_path / NAME).write_text(as_json(words), encoding="utf-8")
    again = load_words(tmp_path)
    assert list(again.tokens) == list(words.tokens)
    assert [tuple(pair) for pair in again.merges] == list(words.merges)
    assert replace(again, tokens=(), merges=()) == replace(words, tokens=(), merges=())
    text = "Tea 語\na | __start__"
    assert Dictionary(again).encode(text) == Dictionary(words).encode(text)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": ["tea"]},
        {"tokens": [*SPECIAL, 1]},
        {"tokens": [*SPECIAL, "a", "a"]},
        {"merges": [["a"]]},
        {"merges": [["a", 1]]},
        {"merges": None},
        {"kind": "gpt2"},
        {"version": "0.3"},
        {"lower": "yes"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_broken_folder_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / NAME
    file.write_text(json.dumps(json.loads(as_json(WORDS)) | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=re.escape(f"{file}: not a dictionary (")):
        load_words(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"tokens": []}'])
def test_a_file_that_is_no_dictionary_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path / NAME}: not a dictionary (")):
        load_words(tmp_path)


# ------------------------------------------------------------------------------- any text and table

LETTERS = "abcé_"
SYMBOLS = st.text(LETTERS, min_size=1, max_size=3)
ENDS = st.one_of(SYMBOLS, SYMBOLS.map(lambda x: f"{x}</w>"), st.just("</w>"))
TABLES = st.lists(st.tuples(SYMBOLS, ENDS), max_size=14)
VERSIONS: st.SearchStrategy[Version] = st.sampled_from(["0.1", "0.2"])


@given(TABLES, st.text(LETTERS, min_size=1, max_size=9), VERSIONS)
@example([("a", "a"), ("aa", "a")], "aaaaa", "0.2")
@example([("a", "</w>"), ("a", "a</w>")], "aaa", "0.1")
def test_merges_are_those_of_the_naive_encoder(
    table: list[tuple[str, str]], word: str, version: Version
) -> None:
    rank: dict[tuple[str, str], int] = {}
    for pair in table:
        rank.setdefault(pair, len(rank))
    found = merged(word, rank, version)
    assert [*(f"{one}@@" for one in found[:-1]), found[-1]] == pieces(word, tuple(table), version)
    assert "".join(found) == word


@given(
    table=TABLES,
    tokens=st.sets(SYMBOLS | SYMBOLS.map(lambda x: f"{x}@@"), max_size=30),
    text=st.text(f"{LETTERS}AÉ .!\n\t\r\u3000語", max_size=30),
    version=VERSIONS,
    kind=st.sampled_from(list(KINDS)),
    lower=st.booleans(),
)
def test_ids_are_those_of_the_naive_encoder(
    table: list[tuple[str, str]],
    tokens: set[str],
    text: str,
    version: Version,
    kind: Kind,
    lower: bool,
) -> None:
    more = [".", "!", "\n", "", "A", *sorted(tokens)]
    words = Words(tokens=[*SPECIAL, *more], kind=kind, lower=lower, merges=table, version=version)
    dictionary = Dictionary(words)
    options = {"dict_tokenizer": kind, "dict_lower": lower}
    expected = ids_of(text, Reader(options, dictionary.ids, tuple(table), version))
    assert dictionary.encode(text) == expected
    assert dictionary.encode(text) == expected  # and again, from what it remembers
