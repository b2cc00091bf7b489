"""The embedding job: presets, decoding in worker processes, full batches across items, encoding, and resume.

`embed` runs it; `load_preset` and `load_preset_encoders` say and load what it runs with.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
