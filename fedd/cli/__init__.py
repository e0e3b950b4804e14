"""fedctl, which steers the daemon of its own machine."""
