from .adaptation import AdaptReport as AdaptReport
from .adaptation import adapt as adapt
