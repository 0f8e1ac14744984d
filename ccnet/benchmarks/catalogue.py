"""The benchmarks by name, in the order in which they run."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ccnet.benchmarks.report import Result, Settings
from ccnet.errors import CcnetError


@dataclass(frozen=True)
class Benchmark:
    """One entry.

    Attributes:
        name: on the command line, and of its module.
        about: what it measures, in one line.
    """

    name: str
    about: str

    def measure(self) -> Callable[[Settings, Result], None]:
        """The function that runs it; its module is loaded now."""
        run: Callable[[Settings, Result], None] = import_module(f"ccnet.benchmarks.{self.name}").measure
        return run


BENCHMARKS = (
    Benchmark("table_5", "one CC layer, s = 2/3, beside conv2d as the input grows: inference, forward and backward"),
    Benchmark("table_6", "1 to 32 CC layers, s = 1, beside as many conv2d: inference, forward and backward"),
    Benchmark("layers", "every layer of CCNet beside conv2d of its channels and kernel, in GFLOP/s"),
    Benchmark("passes", "whole passes beside a chain of conv2d of equal arithmetic, and beside their floor at batch 1"),
    Benchmark("ensembles", "k members in one call beside k single passes"),
    Benchmark("first_use", "the first pass of a new sequence beside its warm ones"),
    Benchmark("training_step", "forward, backward and optimiser beside ConvNet's"),
    Benchmark("memory", "peak memory of one layer and of chains under every backend, and of conv2d"),
    Benchmark("sequences", "what sequences of each sampler cost; counted, not timed"),
)


def find(names: list[str]) -> list[Benchmark]:
    """The benchmarks of these names, all of them without names; "first-use" is "first_use".

    Raises:
        CcnetError: a name that is none.
    """
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    wanted = [name.replace("-", "_") for name in names]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise CcnetError(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in wanted] if wanted else list(BENCHMARKS)
