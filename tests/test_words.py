"""Words in any language: laws over all strings, and examples whose answer can be seen."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoinder.baselines import BM25
from rejoinder.diversity import word_likeness
from rejoinder.metrics import word_f1
from rejoinder.schema import Dialogue, Message
from rejoinder.words import any_of, caseless, composed, folded, marks, words, written

STRANGE = "a̱à İıſßΣς ｶﾞガ 한국어 ที่ क्षि ﷺ ½…´¿¡«»、。؟،٣３👍🏽❤️👨‍👩‍👧\u200b\u200f\u00ad\ud800\u0301≮"
strings = st.text() | st.text(st.sampled_from([*STRANGE, "a", "n", " ", "-"]))
ascii_strings = st.text(st.characters(max_codepoint=127))


@given(ascii_strings)
def test_ascii_text_has_the_words_that_parlai_counts(text: str) -> None:
    plain = text.lower()
    for mark in "!\"#$%&()*+,-./:;<=>?@[]\\^`{|}~_'":
        plain = plain.replace(mark, " ")
    assert words(text) == re.sub(r"\b(a|an|the)\b", " ", plain).split()
    assert written(text) == text.split()
    assert caseless(text) == text.strip().lower()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_one_foreign_word_more_changes_no_other_word(text: str) -> None:
    assert words(f"{text} é") == [*words(text), "é"]


@given(strings)
def test_composed_and_decomposed_text_are_alike(text: str) -> None:
    one, other = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert words(one) == words(other) == words(text)
    assert folded(one) == folded(other)
    assert caseless(one) == caseless(other)
    assert composed(one) == composed(other) == one


@given(strings)
def test_f1_with_itself_is_1(text: str) -> None:
    assert word_f1(text, [text]) == (1.0 if words(text) else 0.0)


@given(strings, strings)
def test_f1_is_symmetric_and_a_share(one: str, other: str) -> None:
    f1 = word_f1(one, [other])
    assert 0 <= f1 <= 1
    assert f1 == pytest.approx(word_f1(other, [one]))


@given(strings)
def test_words_of_words_are_the_same(text: str) -> None:
    assert sorted(words(" ".join(words(text)))) == sorted(words(text))


@given(strings)
def test_no_character_is_lost_or_written_twice(text: str) -> None:
    assert "".join(written(text)) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("¿Cómo estás? ¡Muy bien!", ["cómo", "estás", "muy", "bien"]),
        ("«Oui», dit-elle…", ["oui", "dit", "elle"]),
        ("don’t “stop” – now", ["don", "t", "stop", "now"]),
        ("مرحبًا، كيف حالك؟", ["مرحبًا", "كيف", "حالك"]),
        ("\u200fنعم\u200e", ["نعم"]),  # direction marks show nothing
        ("می\u200cخواهم", ["میخواهم"]),
        ("はい、そうです。", ["は", "い", "そ", "う", "で", "す"]),
        ("私のiPhone１５", ["私", "の", "iphone15"]),  # words of other scripts stay whole
        ("ｶﾞガ", ["ガ", "ガ"]),
        ("你好，世界！", ["你", "好", "世", "界"]),
        ("ที่นี่", ["ที่", "นี่"]),  # marks stay on their letter
        ("안녕하세요, 여러분", ["안녕하세요", "여러분"]),  # Korean has spaces
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("٢٠٢٤ ２０２４ 2024", ["2024", "2024", "2024"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("İstanbul", ["istanbul"]),
        ("ΟΔΟΣ οδός", ["οδοσ", "οδόσ"]),
        ("ok👍🏽 ❤️ ❤", ["ok", "👍", "❤", "❤"]),  # neither skin nor the form of a heart
        ("à a̱ a", ["à", "a̱"]),  # no article under a mark
    ],
)
def test_words_of_many_languages(text: str, expected: list[str]) -> None:
    assert words(text) == [composed(word) for word in expected]


def test_f1_means_something_without_spaces() -> None:
    said = "猫が好きです。"
    assert word_f1(said, ["猫が好きです"]) == 1
    assert word_f1(said, ["犬が好きです"]) == pytest.approx(5 / 6)
    assert word_f1(said, ["ありがとう"]) == pytest.approx(2 / 11)  # が


def test_folded_texts_are_what_a_listener_takes_for_the_same() -> None:
    assert folded("¡Hola, Ñandú!") == folded("hola n\u0303andu\u0301")
    assert folded("The end.") == folded("the END") != folded("end")
    assert folded("की") != folded("कि"), "marks are letters too"
    assert folded("?!") != folded("..."), "two texts without a word are still two texts"


@pytest.mark.parametrize(
    ("blocked", "text", "stopped"),
    [
        ("BAD", "a bad word", True),
        ("bad", "badly put", False),
        ("straße", "DIE STRASSE", True),
        ("niño", "el NIN\u0303O", True),
        ("año", "los años", False),
        ("馬鹿", "お前は馬鹿だ", True),  # no spaces, so no edges
        ("pro", "私のproです", True),
        ("pro", "私のprosです", False),
        ("कम", "कमी", False),  # the vowel sign makes another word
        ("กา", "ก่า", False),
        ("กา", "มีกาดำ", True),
        ("سيئ", "كلام سيئ، نعم", True),
        ("سيئ", "سيئة", False),
        ("c++", "i like c++ .", True),
    ],
)
def test_blocked_words_in_many_scripts(blocked: str, text: str, stopped: bool) -> None:
    assert bool(any_of(["zzz", blocked]).search(caseless(text))) is stopped


@settings(max_examples=30)  # an expression is made each time
@given(st.lists(strings.filter(lambda text: text.strip() != ""), min_size=1, max_size=3), strings)
def test_any_word_can_be_blocked(blocked: list[str], text: str) -> None:
    pattern = any_of(word.strip() for word in blocked)
    pattern.search(caseless(text))
    for word in blocked:
        assert pattern.search(f" {caseless(word)} ")


def test_every_mark_is_known() -> None:
    signs = "".join(map(chr, range(sys.maxunicode + 1)))
    expected = [s for s in signs if unicodedata.category(s)[0] == "M" and s < "\U000e0000"]
    assert re.findall(f"[{marks()}]", signs) == expected
    assert len(expected) > 2000


def test_bm25_finds_what_is_shared_without_spaces() -> None:
    asked = [Dialogue((Message("user", "猫は好きですか？"),))]
    scores = BM25().score_many(asked, [["雨が降った。", "うちの猫は三毛です。"]])[0]
    assert scores.argmax() == 1


def test_likeness_of_words_in_two_forms() -> None:
    assert word_likeness(["Adiós, José", "adio\u0301s jose\u0301"])[0, 1] == 1
