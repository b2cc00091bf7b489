from .paths import is_folder as is_folder
from .paths import local_path as local_path
from .paths import walk_files as walk_files
from .table import SUFFIXES as SUFFIXES
from .table import Table as Table
from .text_files import read_lines as read_lines
from .values import is_missing as is_missing
from .values import to_text as to_text
