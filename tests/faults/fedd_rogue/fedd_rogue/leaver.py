"""Ends the interpreter when imported."""

import sys

print("a plugin may print what it likes")
sys.exit(7)
