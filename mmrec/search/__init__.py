"""Asking a store: the same content again.

`find_duplicates` finds the pairs of items that show or sound the same, `group_duplicates` puts them together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
