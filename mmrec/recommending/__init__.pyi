from .fitting import RecommenderConfig as RecommenderConfig
from .recommendations import recommend_in_blocks as recommend_in_blocks
from .recommendations import write_recommendations as write_recommendations
from .recommender import Recommender as Recommender
from .tokens import read_tokens as read_tokens
from .tuning import Trial as Trial
from .tuning import tune as tune
