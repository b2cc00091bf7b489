"""Recommenders: fitted from a store and interactions, saved, loaded, tuned, and asked for rankings.

`Recommender` is the model; `tune` searches its settings; `write_recommendations` ranks for any number of users.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
