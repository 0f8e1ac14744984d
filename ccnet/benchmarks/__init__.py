"""The measuring half of `ccnet bench`: what the library costs on this machine, beside what its arithmetic costs.

Every benchmark times its alternatives in turns (A, B, A, B, ...), so that both see the same machine, reports medians
with half the interquartile range, and checks its outputs against the `standard` backend in float64 in the same run: a
wrong result ends it. `catalogue.py` lists them; each is one file with a function `measure`.
"""
