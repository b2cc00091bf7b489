from .choosing import uses_ray as uses_ray
from .ray_cluster import connected as connected
from .ray_cluster import errors_here as errors_here
from .ray_cluster import on_this_machine as on_this_machine
from .ray_cluster import run_in_order as run_in_order
