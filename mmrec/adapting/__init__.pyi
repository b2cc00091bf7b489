from .adaptation import adapt as adapt
from .report import AdaptReport as AdaptReport
