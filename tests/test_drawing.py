"""Images: real PNG files, the same for the same figures, without pyplot."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO

import numpy as np
from PIL import Image

from rejoinder import drawing
from rejoinder.reliability import Bin

LOSS = {"loss": [(10, 2.5), (20, 1.5), (30, 1.25)]}
BINS = [Bin(0.1, 0.2, 40), Bin(0.5, 0.4, 20), Bin(0.9, 0.95, 10)]


def pixels(image: bytes) -> np.ndarray:
    with Image.open(BytesIO(image)) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened.convert("L"))


def test_images_show_what_they_are_given() -> None:
    drawn = [
        drawing.curves(LOSS, "step", "loss"),
        drawing.curves({"loss": [(10, 2.5), (20, 1.5), (30, 2.0)]}, "step", "loss"),
        drawing.curves({**LOSS, "lr": [(10, 1.0)]}, "step", "loss", marks=True),
        drawing.reliability(BINS),
        drawing.reliability(BINS[:1]),
        drawing.risk([(0.5, 0.1), (1.0, 0.4)]),
    ]
    assert len(set(drawn)) == len(drawn)
    for image in drawn:
        dark = (pixels(image) < 128).mean()
        assert 0.001 < dark < 0.5, "neither blank nor black"
    assert drawing.curves(LOSS, "step", "loss") == drawn[0]


def test_pyplot_is_left_alone() -> None:
    code = (
        "import sys; from rejoinder import drawing; assert 'matplotlib' not in sys.modules;"
        "drawing.risk([(1.0, 0.5)]); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "False\n"
