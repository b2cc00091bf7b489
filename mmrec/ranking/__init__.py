"""Exact and approximate top-k of item vectors for user vectors; knows nothing of users, stores or models.

`Ranker` is exact, `ApproximateRanker` uses an index, `diversify` re-ranks lists.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
