"""The sample catalog, written by code: `make_sample_catalog`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
