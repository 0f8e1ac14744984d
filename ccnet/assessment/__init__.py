"""Can this classifier be shipped? Accuracy with error bars, ensembles beside views, calibration, steadiness, cost.

Read in this order: `options` (what is asked), `passes` (how the network is run), `classes` (labels by name),
`gathering` (all logits, once), `scores`, `calibration`, `temperature`, `intervals`, `churn` (numbers from logits),
`rows`, `comparisons`, `shown`, `shifts` (parts of the document), `assess` (the document), `verdict` (the document in
sentences), `tables`, `markdown`, `plots`, `page` (the document to read), `card` (what a model card takes of it).
"""

from ccnet.assessment.assess import assess, passes_needed
from ccnet.assessment.card import metrics
from ccnet.assessment.markdown import markdown
from ccnet.assessment.options import AssessmentOptions
from ccnet.assessment.page import html
from ccnet.assessment.passes import LocalPasses, Passes

__all__ = ["AssessmentOptions", "LocalPasses", "Passes", "assess", "html", "markdown", "metrics", "passes_needed"]
