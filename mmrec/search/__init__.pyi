from .duplicates import Duplicate as Duplicate
from .duplicates import DuplicateGroup as DuplicateGroup
from .duplicates import find_duplicates as find_duplicates
from .duplicates import group_duplicates as group_duplicates
