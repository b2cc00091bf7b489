"""mmrec: item vectors, user vectors and rankings for catalogs of video, sound and text.

>>> import mmrec
>>> report = mmrec.embed("catalog.csv", "store", preset="light")  # doctest: +SKIP
>>> ids, vectors_ID = mmrec.FeatureStore("store").vectors("visual")
"""

import os

import lazy_loader

# torch's threads spin while they wait, and take the processors from the decoding workers, unless told not to before
# torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
