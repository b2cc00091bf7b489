"""Tables as people have them: CSV, JSONL and Parquet files and folders of Parquet parts, read row by row or as columns.

`Table` reads one; `to_text` says a value of any type in words; `local_path` refuses what lies on another machine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
