"""The other end of the pipe: the only place of ours where plugins and NumPy live."""
