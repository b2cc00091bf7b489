"""The report: what was embedded, what failed, how items lie to each other, and what a model makes of them, as one page.

`write_report` writes it. `project` lays vectors out as a map; `thumbnail` and `waveform` show what a file looks and
sounds like.
"""

import lazy_loader

from mmrec.errors import refuse_shadowed_packages

refuse_shadowed_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
