from .manifest import Catalog as Catalog
from .manifest import Item as Item
from .manifest import read_catalog as read_catalog
