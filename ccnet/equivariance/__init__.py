"""Shift probes: does the last map of a network move along when its input is shifted? (arXiv 2006.11120, Table 1)

Read in this order: `protocol` (every choice, named), `shifts` (image forth, map back), `cosine`, `subject` (the model
under test), `measure` (runs the pairs), `results`, `probes` (the public functions).
"""

from ccnet.equivariance.cosine import cosine_after_cut
from ccnet.equivariance.probes import noise_images, shift_similarity, similarity_map, table1
from ccnet.equivariance.protocol import Choices, Protocol
from ccnet.equivariance.results import ShiftSimilarity, SimilarityMap
from ccnet.equivariance.shifts import draw_shifts, shift_images, shift_map_back

__all__ = [
    "Choices",
    "Protocol",
    "ShiftSimilarity",
    "SimilarityMap",
    "cosine_after_cut",
    "draw_shifts",
    "noise_images",
    "shift_images",
    "shift_map_back",
    "shift_similarity",
    "similarity_map",
    "table1",
]
