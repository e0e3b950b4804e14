"""Pure and synchronous: values in, events, bytes and actions out."""
