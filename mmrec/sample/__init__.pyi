from .catalog import make_sample_catalog as make_sample_catalog
