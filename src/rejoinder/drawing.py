"""Curves and diagrams as PNG images, drawn without a screen.

matplotlib is loaded when something is drawn, and through its objects alone: pyplot would keep every
figure and choose a window system by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from rejoinder.reliability import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
SIZE = (6.0, 3.6)  # inches
DPI = 110
PALE = "0.6"  # of what the curves are compared with


def curves(lines: Mapping[str, Points], across: str, up: str, marks: bool = False) -> bytes:
    """One line for each name over the same axes; `marks` shows the points, where they are few."""
    figure, axes = _blank(across, up)
    for name, points in lines.items():
        axes.plot(*_columns(points), label=name, marker="o" if marks else "", markersize=3)
    if len(lines) > 1:
        axes.legend()
    return _png(figure)


def reliability(bins: Sequence[Bin]) -> bytes:
    """Share of right answers over what was said; a calibrated one lies on the diagonal.

    A point's area goes with the number of answers behind it.
    """
    figure, axes = _blank("confidence", "share that is right")
    most = max((one.count for one in bins), default=1)
    axes.plot([0, 1], [0, 1], color=PALE, linestyle="--")
    axes.plot([one.said for one in bins], [one.right for one in bins])
    axes.scatter(
        [one.said for one in bins],
        [one.right for one in bins],
        [10 + 110 * one.count / most for one in bins],
    )
    _unit(axes)
    return _png(figure)


def risk(points: Points) -> bytes:
    """Share of wrong answers over the share of contexts that get one, the surest first."""
    figure, axes = _blank("coverage", "risk (share that is wrong)")
    axes.plot(*_columns(points))
    axes.axhline(points[-1][1], color=PALE, linestyle="--")  # the surest first are no better
    _unit(axes)
    return _png(figure)


def _blank(across: str, up: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    return figure, axes


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _unit(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _png(figure: Figure) -> bytes:
    """The image; without matplotlib's name and version in it, so equal figures are equal bytes."""
    image = BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()
