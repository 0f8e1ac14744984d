"""Can this classifier be shipped? Accuracy with error bars, ensembles beside views, calibration, steadiness, cost.

Read in this order: `options` (what is asked), `passes` (how the network is run), `gathering` (all logits, once),
`scores`, `calibration`, `intervals`, `churn` (numbers from logits), `rows`, `shown`, `shifts` (parts of the document),
`assess` (the document), `verdict` (the document in sentences), `markdown`, `page` with `plots` (the document to read).
"""

from ccnet.assessment.assess import assess, passes_needed
from ccnet.assessment.markdown import markdown
from ccnet.assessment.options import AssessmentOptions
from ccnet.assessment.page import html
from ccnet.assessment.passes import LocalPasses, Passes

__all__ = ["AssessmentOptions", "LocalPasses", "Passes", "assess", "html", "markdown", "passes_needed"]
