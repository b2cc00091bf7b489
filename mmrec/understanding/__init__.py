"""What is said, written and meant in the items of a store: speech to text, text on screen, language models.

Answers of language models follow a schema, or are a problem with a reason; what the catalog says is data to them.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
