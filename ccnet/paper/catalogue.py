"""The items by name, in the paper's order."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ccnet.errors import CcnetError
from ccnet.paper.context import Context
from ccnet.paper.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Item:
    """One table or figure.

    Attributes:
        name: on the command line, and of its module.
        title: what it shows.
        source: where in the paper.
    """

    name: str
    title: str
    source: str

    def find(self) -> Callable[[Context], Findings]:
        """The function that runs it; its module is loaded now."""
        run: Callable[[Context], Findings] = import_module(f"ccnet.paper.{self.name}").find
        return run

    def plot(self) -> "Callable[[dict[str, Any]], Figure] | None":
        """The function that draws a kept item; None where there is nothing to draw."""
        return getattr(import_module(f"ccnet.paper.{self.name}"), "plot", None)


ITEMS = (
    Item("fig_3", "The continuous kernels that layers learn, beside the ones they imitate", "Sec. 6, Fig. 3"),
    Item("fig_5", "Ladders of map sizes that one network can take, and that end alike", "Sec. 4, Fig. 5"),
    Item("fig_6", "Even conv layers move what they filter, CC layers hardly", "Sec. 4, Fig. 6"),
    Item("fig_7", "Taught at one float scale, a layer resizes at any other", "Sec. 6, Fig. 7"),
    Item("table_1", "Shift-equivariance of the last map", "Sec. 6, Table 1"),
    Item("shift_measures", "What the literature measures under shifts, beside Table 1", "beside Sec. 6"),
    Item("ensembles", "The power of scale ensembles, beside views of the input at equal passes", "Sec. 4 and 6"),
    Item("table_2", "The Internal-Nets: parameters, and the weights that they begin with", "Sec. A.1, Table 2"),
    Item("table_3", "The two networks layer by layer, and how they are trained", "Sec. A.2, Table 3"),
    Item("table_4", "Scale augmentations and the map sizes that they give", "Sec. A.2, Eq. 4, Table 4"),
    Item("table_5", "Time and memory of a CC layer as its input grows", "Sec. B.1, Table 5"),
    Item("table_6", "Time and memory of CC layers in a row, and of a training step", "Sec. B.1, Table 6, and B.2"),
)


def choose(names: list[str]) -> list[Item]:
    """The items of these names, all of them for "all" or none; "fig-3" is "fig_3".

    Raises:
        CcnetError: a name that is none.
    """
    known = {item.name: item for item in ITEMS}
    wanted = [name.replace("-", "_").lower() for name in names]
    if not wanted or "all" in wanted:
        return list(ITEMS)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise CcnetError(f"no item {', '.join(unknown)}; there are {', '.join(known)}, and all")
    return [known[name] for name in wanted]
