"""Every decoder of bytes that strangers, members, workers or local users send, as a target of the fuzzer.

A target takes bytes and raises nothing but the errors that its decoder documents. Where a signature stands
before a parser, the target signs what was mutated: else nothing but the signature check would be tested.
"""

from __future__ import annotations

from fuzz.link_decoders import LINK_TARGETS
from fuzz.message_decoders import MESSAGE_TARGETS
from fuzz.plugin_decoders import PLUGIN_TARGETS
from fuzz.run_decoders import RUN_TARGETS
from fuzz.targets import Target as Target
from fuzz.text_decoders import TEXT_TARGETS

TARGETS = {**LINK_TARGETS, **MESSAGE_TARGETS, **RUN_TARGETS, **PLUGIN_TARGETS, **TEXT_TARGETS}
