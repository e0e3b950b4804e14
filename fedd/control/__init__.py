"""The local control API: one table of routes, a server, a client."""
