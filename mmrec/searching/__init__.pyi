from .moments import Moment as Moment
from .query import Query as Query
from .query import WEIGHTS as WEIGHTS
from .searcher import Searcher as Searcher
from .searcher import search as search
