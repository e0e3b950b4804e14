"""Words and bounds of runs that a device needs before it takes part in any."""

from __future__ import annotations

from typing import TypeAlias

SURVIVORS, CONTRIBUTED, RESTART = "survivors", "contributed", "restart"

CONTRACTS = (SURVIVORS, CONTRIBUTED, RESTART)
"""What a run's answer is when a member dies."""

Parameter: TypeAlias = bool | int | float | str

MAX_DOCUMENT_BYTES = 256 * 1024
"""A manifest of 500 members, who each add their id and a signed acceptance: about 400 bytes."""
