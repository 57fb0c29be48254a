"""Many machines: tiles mapped over a Dask cluster, the user's own or one on this machine."""
