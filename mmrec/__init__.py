"""mmrec: item vectors, user vectors and rankings for catalogs of video, sound and text.

>>> import mmrec
>>> report = mmrec.embed("catalog.csv", "store", preset="light")
>>> ids, vectors_ID = mmrec.FeatureStore("store").vectors("visual")
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrec.adapting import adapt
    from mmrec.catalog import Catalog, Item, read_catalog
    from mmrec.embedding import EmbedReport, embed
    from mmrec.errors import CatalogError, EncoderError, MMRecError, ModelError, Problem, Reason, StoreError
    from mmrec.features import Features, Status, Tokens
    from mmrec.fitting import RecommenderConfig
    from mmrec.hyperparameters import tune
    from mmrec.importing import import_features
    from mmrec.presets import Preset, load_preset
    from mmrec.recommender import Recommender
    from mmrec.store import FeatureStore

# torch's threads spin while they wait, and take the processors from the decoding workers, unless told not to before
# torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_HOMES = {
    "Catalog": "catalog",
    "CatalogError": "errors",
    "EmbedReport": "embedding",
    "EncoderError": "errors",
    "FeatureStore": "store",
    "Features": "features",
    "Item": "catalog",
    "MMRecError": "errors",
    "Preset": "presets",
    "ModelError": "errors",
    "Problem": "errors",
    "Reason": "errors",
    "Recommender": "recommender",
    "RecommenderConfig": "fitting",
    "Status": "features",
    "StoreError": "errors",
    "Tokens": "features",
    "adapt": "adapting",
    "embed": "embedding",
    "import_features": "importing",
    "load_preset": "presets",
    "read_catalog": "catalog",
    "tune": "hyperparameters",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mmrec' has no attribute {name!r}")
    value = getattr(import_module(f"mmrec.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
