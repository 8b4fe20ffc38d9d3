"""Addresses and numbers of people. All of these are made up or from ranges kept for examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.data.personal import Finding, mask, personal

EMAIL, PHONE, CARD = "an e-mail address", "a phone number", "a card number"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to jo.doe+x@mail.example.org.", Finding(EMAIL, "jo.doe+x@mail.example.org")),
        ("call 555-0123 now", Finding(PHONE, "555-0123")),
        ("(202) 555-0123", Finding(PHONE, "(202) 555-0123")),
        ("1-202-555-0123!", Finding(PHONE, "1-202-555-0123")),
        ("it is 202.555.0123", Finding(PHONE, "202.555.0123")),
        ("2025550123", Finding(PHONE, "2025550123")),
        ("+44 20 7946 0123", Finding(PHONE, "+44 20 7946 0123")),
        ("0171 946 01 23", Finding(PHONE, "0171 946 01 23")),
        ("4111 1111 1111 1111", Finding(CARD, "4111 1111 1111 1111")),
        ("5555-5555-5555-4444,", Finding(CARD, "5555-5555-5555-4444")),
        ("378282246310005", Finding(CARD, "378282246310005")),
    ],
)
def test_found(text: str, found: Finding) -> None:
    assert personal(text) == [found]


@pytest.mark.parametrize(
    "text",
    [
        "i was born on 2019-11-22 at 10:30",
        "from 1990-2000 and 1990 1995 2000",
        "4111 1111 1111 1112 is no card",
        "0000 0000 0000 0000",
        "192.168.100.200",
        "pi is 3.14159265",
        "hits .275/.360/.475 this year",
        "$1,000,000 or 1234567",
        "1 2 3 4 5 6 7 8 9 10",
        "me @ home",
        "a1234567890b",
        "",
    ],
)
def test_not_found(text: str) -> None:
    assert personal(text) == []


def test_several_at_once_and_masked() -> None:
    text = "jo@example.org or 202-555-0123, not 202-555-0124"
    assert [finding.kind for finding in personal(text)] == [EMAIL, PHONE, PHONE]
    assert mask(text) == "jo...rg or 20...23, not 20...24"
    assert mask("nothing here") == "nothing here"


def test_a_long_text_takes_little_time() -> None:
    assert personal("a" * 100_000 + "@" + "1 " * 100_000) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("電話は０９０－１２３４－５６７８です", Finding(PHONE, "０９０－１２３４－５６７８")),
        ("電話は090-1234-5678です", Finding(PHONE, "090-1234-5678")),
        ("090ー1234ー5678", Finding(PHONE, "090ー1234ー5678")),  # the long vowel as a dash
        ("اتصل بي: ٠٥٠ ١٢٣ ٤٥٦٧", Finding(PHONE, "٠٥٠ ١٢٣ ٤٥٦٧")),
        ("۰۹۱۲۳۴۵۶۷۸۹", Finding(PHONE, "۰۹۱۲۳۴۵۶۷۸۹")),
        ("llame al 612\u00a034\u00a056\u00a078", Finding(PHONE, "612\u00a034\u00a056\u00a078")),
        ("0171–946–01–23", Finding(PHONE, "0171–946–01–23")),
        ("४१११ ११११ ११११ ११११", Finding(CARD, "४१११ ११११ ११११ ११११")),
        ("écrire à zoé@exemple.example.", Finding(EMAIL, "zoé@exemple.example")),
        ("ｊｏ＠ｅｘａｍｐｌｅ．ｏｒｇ", Finding(EMAIL, "ｊｏ＠ｅｘａｍｐｌｅ．ｏｒｇ")),
    ],
)
def test_found_in_other_scripts(text: str, found: Finding) -> None:
    assert personal(text) == [found]
    assert found.text not in mask(text)


@pytest.mark.parametrize("text", ["٢٠١٩-١١-٢٢", "从１９９０年到２０００年", "ب١٢٣٤٥٦٧٨٩٠ب"])
def test_not_found_in_other_scripts(text: str) -> None:
    assert personal(text) == []


@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    assert all(finding.text in text for finding in personal(text))
    mask(text)
