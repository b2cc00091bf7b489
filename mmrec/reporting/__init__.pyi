from .pictures import Preview as Preview
from .pictures import previews as previews
from .pictures import thumbnail as thumbnail
from .pictures import waveform as waveform
from .projection import project as project
from .report import Report as Report
from .report import write_report as write_report
