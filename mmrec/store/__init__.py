"""The feature store on LanceDB: one row per item, with its tokens, its status and the reasons for what is missing.

`FeatureStore` reads and writes; `import_features` brings in features made elsewhere. No other room
imports lancedb.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
