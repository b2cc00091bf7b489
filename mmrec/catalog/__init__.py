"""Catalogs: manifests in CSV, JSONL or Parquet, or a folder of media files, read as a stream of items.

`read_catalog` validates one and returns a `Catalog`, whose `items()` are `Item`s.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
