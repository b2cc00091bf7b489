"""Tags: labels of items by prompts alone, by examples, or by both, kept in the store beside the items.

`read_labels` reads a set of labels, `score_labels` scores all items of a store, and `tag` keeps the result, by which
searches and recommendations can be filtered; `read_examples` reads what people say of items.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
