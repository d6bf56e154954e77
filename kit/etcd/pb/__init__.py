"""Generated messages of etcd; see ``etcd.proto``."""
