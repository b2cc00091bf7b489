"""A cluster of Ray: connecting to one, and running functions on its machines.

Whether one is asked for is told without Ray; what runs on one needs the extra `ray`. Only `ray_cluster.py` and the
stages of the embedding job import ray.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
