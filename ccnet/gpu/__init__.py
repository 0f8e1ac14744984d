"""Scale ensembles on a GPU: all members of an ensemble in one kernel launch a layer, whole passes as CUDA graphs.

`ccnet.prefixes` finds what members share, `tables` says which output pixels share weights and where they look,
`weights` generates those weights once, `kernel` is the one Triton kernel, `tiling` chooses its tile sizes, `program`
puts them together and `graphs` records it as CUDA graphs. Importing this package needs neither a GPU nor Triton; making
an `EnsembleProgram` does.
"""

from ccnet.gpu.program import EnsembleProgram, ProgramDescription, supports
from ccnet.gpu.tiling import Precision, TileSizes

__all__ = ["EnsembleProgram", "Precision", "ProgramDescription", "TileSizes", "supports"]
