"""The paper's tables and figures beside ours: one file an item, run by `ccnet paper`.

Read in this order: `findings` (what an item hands back), `context` (what it is given: options, and steps that survive
an interruption), `catalogue` (the items), `run` (runs and keeps them), `page` (docs/paper.md, made of what was kept).
An item is a module with `find(context) -> Findings`, and `plot(document) -> Figure` where there is something to draw.
"""
