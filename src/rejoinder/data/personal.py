"""Find what looks like an e-mail address, a phone number or a card number in a text.

A look, not a proof: it knows common ways of writing, so a file without findings may still hold
such things, and a finding may be harmless. Digits, dashes and spaces of any script are seen as
those of ASCII, and a number may touch letters of a script that has no spaces between words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address

from rejoinder.words import SPACELESS

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_LETTER = rf"[^\W{SPACELESS}]"
NUMBER = re.compile(rf"(?<!{_LETTER})(?<!\.)[+(]?\d(?:[ .()/-]{{0,2}}\d){{6,18}}(?!{_LETTER})")
_DASHES = "\u2212\u30fc"  # minus, and the long vowel of kana, which is typed for a dash
CARD_DIGITS = range(13, 20)
PHONE_DIGITS = range(9, 16)  # ITU-T E.164 allows at most 15


@dataclass(frozen=True, slots=True)
class Finding:
    """A part of a text, and what it looks like."""

    kind: str
    text: str

    @property
    def masked(self) -> str:
        """Two characters at either end, so that the place is found and the rest kept."""
        return f"{self.text[:2]}...{self.text[-2:]}"


def personal(text: str) -> list[Finding]:
    """Find all that looks personal: first addresses, then numbers."""
    plain = text if text.isascii() else "".join(map(_ascii, text))  # as long as the text
    found = []
    if "@" in plain:
        for match in EMAIL.finditer(plain):
            found.append(Finding("an e-mail address", text[slice(*match.span())]))
        plain = EMAIL.sub(lambda match: " " * len(match[0]), plain)
    for match in NUMBER.finditer(plain):
        if _is_card(match[0]):
            found.append(Finding("a card number", text[slice(*match.span())]))
        elif _is_phone(match[0]):
            found.append(Finding("a phone number", text[slice(*match.span())]))
    return found


@cache
def _ascii(sign: str) -> str:
    """One ASCII character that looks or counts the same, or the character itself."""
    kind = unicodedata.category(sign)
    if kind == "Nd":
        return str(unicodedata.decimal(sign))
    if kind in {"Pd", "Zs"} or sign in _DASHES:
        return " " if kind == "Zs" else "-"
    return chr(ord(sign) - 0xFEE0) if "\uff01" <= sign <= "\uff5e" else sign


def mask(text: str) -> str:
    """Replace all that looks personal by its masked form."""
    for finding in personal(text):
        text = text.replace(finding.text, finding.masked)
    return text


def _is_card(text: str) -> bool:
    digits = [int(digit) for digit in text if digit.isdecimal()]
    return text[0] != "+" and len(digits) in CARD_DIGITS and any(digits) and _luhn(digits)


def _luhn(digits: list[int]) -> bool:
    """Check the last digit by the rule of ISO/IEC 7812: every second one doubled."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(text: str) -> bool:
    groups = [len(group) for group in re.findall(r"\d+", text)]
    digits = sum(groups)
    if text[0] in "+(":
        return digits in range(7, 16)
    if groups == [3, 4]:
        return text[3] in "-."
    if digits not in PHONE_DIGITS or _is_other(text):
        return False
    if len(groups) == 1:
        return digits in (10, 11)
    return len(groups) > 2 and groups[0] <= 5 and all(2 <= size <= 4 for size in groups[1:])


def _is_other(text: str) -> bool:
    """Whether groups of digits are an address of a computer or a list of years."""
    try:
        IPv4Address(text)
    except ValueError:
        return all(re.fullmatch(r"(19|20)\d\d", part) for part in re.findall(r"\d+", text))
    return True
