"""Shift probes: does the last map of a network move along when its input is shifted? (arXiv 2006.11120, Table 1)

Read in this order: `protocol` (every choice, named), `shifts` and `subpixel` (image forth, map back), `cosine`,
`comparison`, `subject` (the model under test), `measure` (runs the pairs), `results`, `probes` (Table 1), `report`
(what the literature measures beside it), `period` (where a CCNet can be exact).
"""

from ccnet.equivariance.cosine import cosine_after_cut
from ccnet.equivariance.period import exact_period
from ccnet.equivariance.probes import noise_images, shift_similarity, similarity_map, table1
from ccnet.equivariance.protocol import Choices, Protocol
from ccnet.equivariance.report import MEASURES, Measure, ShiftReport, shift_grid, shift_report
from ccnet.equivariance.results import ShiftSimilarity, SimilarityMap
from ccnet.equivariance.shifts import draw_shifts, shift_images, shift_map_back

__all__ = [
    "MEASURES",
    "Choices",
    "Measure",
    "Protocol",
    "ShiftReport",
    "ShiftSimilarity",
    "SimilarityMap",
    "cosine_after_cut",
    "draw_shifts",
    "exact_period",
    "noise_images",
    "shift_grid",
    "shift_images",
    "shift_map_back",
    "shift_report",
    "shift_similarity",
    "similarity_map",
    "table1",
]
