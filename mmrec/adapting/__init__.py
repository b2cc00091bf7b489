"""Adapting encoders to a catalog: LoRA adapters, or all weights, trained on its media and interactions.

`adapt` trains them and writes a preset that names them.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
