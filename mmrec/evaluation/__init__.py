"""Interactions and their splits, metrics of rankings, baselines, and comparisons with them.

`read_interactions`, `split`, `rank_metrics`, `BASELINES`, and `evaluate_rankings`, which puts them together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
