"""Decoding: one open of a file gives the pictures, the sound and their true times; the only room that reads with av.

`decode_media` takes a `FramePlan` and a `SoundPlan`, which say what to look at, and returns `DecodedMedia`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
