"""Times in seconds, monotonic, at which something is due."""

from __future__ import annotations

from typing import Final

# When what is not due is due: to be compared like any other time.
NEVER: Final = float("inf")
