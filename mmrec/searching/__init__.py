"""Search: items and moments by words, by example, and by what the catalog says; and the same content again.

`Query` is what is asked, `Searcher` answers on a store, and `search` does both at once. `find_duplicates` finds the
pairs of items that show or sound the same, `group_duplicates` puts them together.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
