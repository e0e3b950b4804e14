"""Where other people's code is kept: plugins, inputs, runs."""
