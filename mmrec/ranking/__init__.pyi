from .approximate import ApproximateRanker as ApproximateRanker, neighbour_search as neighbour_search
from .pruning import fast_types as fast_types
from .ranker import Ranker as Ranker
from .ranker import diversify as diversify
