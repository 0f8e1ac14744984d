"""One look for all plots; matplotlib's objects and not its `pyplot`, so that nothing global is touched.

matplotlib is an extra, imported when something is drawn.
"""

from typing import TYPE_CHECKING

from ccnet.errors import CcnetError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (5.2, 3.8)  # inches
# One colour a network in every plot; of Okabe and Ito's set, which the colour-blind can tell apart.
COLOURS = {"CCNet": "#0072B2", "ConvNet": "#D55E00", "BlurConvNet": "#009E73"}


def require() -> None:
    """Refuse at once what would be refused when hours of work are to be drawn.

    Raises:
        CcnetError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise CcnetError("drawing needs matplotlib: pip install 'ccnet[figures]'") from error


def figure(columns: int, rows: int = 1, *, panel: tuple[float, float] = PANEL) -> "tuple[Figure, list[Axes]]":
    """An empty figure and its axes, row by row.

    Raises:
        CcnetError: matplotlib is not installed.
    """
    require()
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    return drawn, list(drawn.subplots(rows, columns, squeeze=False).flat)
