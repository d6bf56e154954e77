"""Version 1; see ``trans.proto``."""
