"""Generated messages of the coordinator; see ``dtm.proto``."""
