from .app import create_app as create_app
from .client import Client as Client
from .config import ServiceConfig as ServiceConfig
from .interaction_log import InteractionLog as InteractionLog
from .observing import JsonFormatter as JsonFormatter
from .serving import serve as serve
