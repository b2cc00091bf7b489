"""The HTTP service: a JSON API over a store and models, with live interactions that survive a restart.

`create_app` is the ASGI application, `serve` runs it in worker processes, and `Client` asks it with the names and
returns of `Recommender` and `Searcher`. Data flows from requests (`schemas`) over what a process has open (`resources`)
to answers; `guards` stands before all of it.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
