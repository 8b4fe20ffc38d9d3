"""A model one of whose files is damaged is imported or refused: no crash, and nothing is run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from rejoinder.errors import RejoinderError
from rejoinder.legacy.parlai import find_files, import_ranker
from rejoinder.legacy.transfertransfo import find_conv_ai, import_generator

from .broken import CHANCES, broken
from .conv_ai import LEGACY

GOLDEN = Path(__file__).parents[1] / "golden" / "parlai"
SOURCES = [GOLDEN / "poly", LEGACY]
DANGEROUS = ("os.system", "subprocess.Popen", "os.exec", "pty.spawn", "socket.connect")
_ran: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in DANGEROUS:
        _ran.append(event)


sys.addaudithook(_watch)


def survives(source: Path, room: Path, chance: Random) -> None:
    """Damage one file of a copy and import it."""
    files = sorted(file for file in source.iterdir() if file.is_file())
    shutil.rmtree(room, ignore_errors=True)
    shutil.copytree(source, room)
    hurt = room / chance.choice(files).name
    whole = hurt.read_bytes()
    hurt.chmod(0o644)
    hurt.write_bytes(broken(whole, chance))
    before = len(_ran)
    said = ""
    try:
        parlai = find_files(room)
        if parlai is not None:
            import_ranker(parlai)
        conv_ai = find_conv_ai(room)
        if conv_ai is not None:
            import_generator(conv_ai)
    except RejoinderError as error:
        said = str(error)
    assert "\n" not in said
    assert len(_ran) == before


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@given(chance=CHANCES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_model(source: Path, tmp_path: Path, chance: Random) -> None:
    survives(source, tmp_path / "hurt", chance)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_many_damaged_models(source: Path, tmp_path: Path) -> None:
    chance = Random(0)
    for _ in range(2500):
        survives(source, tmp_path / "hurt", chance)
