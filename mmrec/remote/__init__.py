"""What lies elsewhere, in object stores (`s3://`, `gs://`, `az://`) and on web servers (`https://`).

A `Place` is a local path or a `Url`; the functions that take one work on both. Only this room imports obstore, and only
when a URL is used. Whatever goes wrong is a `RemoteError` that says what to do.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
