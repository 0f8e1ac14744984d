"""How the scales of one axis are drawn: one file a method, one interface (`AxisSampler`).

corrected      A.2 of the paper: draw every layer, then let one of them absorb what the product still lacks
conditioned    the same prior for every layer, conditioned on the product: no layer is corrected
"""

from ccnet.samplers.conditioned import ConditionedSampler
from ccnet.samplers.corrected import CorrectedSampler
from ccnet.samplers.distribution import AxisDistribution, AxisSampler

__all__ = ["AxisDistribution", "AxisSampler", "ConditionedSampler", "CorrectedSampler"]
