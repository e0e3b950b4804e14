"""What `fedctl demo` runs: real daemons and a shipped table."""
