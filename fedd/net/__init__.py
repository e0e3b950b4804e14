"""The trio shell around the cores; the only place with network sockets."""
