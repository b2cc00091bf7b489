from .adapting import adapt as adapt
from .catalog import Catalog as Catalog, Item as Item, read_catalog as read_catalog
from .embedding import EmbedReport as EmbedReport, Preset as Preset, embed as embed, load_preset as load_preset
from .errors import (
    CatalogError as CatalogError,
    EncoderError as EncoderError,
    MMRecError as MMRecError,
    ModelError as ModelError,
    Problem as Problem,
    Reason as Reason,
    SearchError as SearchError,
    StoreError as StoreError,
    TaggingError as TaggingError,
)
from .recommending import Recommender as Recommender, RecommenderConfig as RecommenderConfig, tune as tune
from .searching import Query as Query, Searcher as Searcher, search as search
from .service import Client as Client
from .store import (
    Features as Features,
    FeatureStore as FeatureStore,
    Status as Status,
    Tokens as Tokens,
    import_features as import_features,
)
from .tagging import tag as tag

__version__: str
