"""What another room of the node has to offer to use the links that presence keeps."""

from __future__ import annotations

from typing import Protocol

from fedd.api.types import PeerId
from fedd.core.broadcast_messages import BroadcastMessage


class LinkUser(Protocol):
    """Told, synchronously, what becomes of this node's links; nothing here may wait."""

    def entered(self) -> None:
        """This node is in a federation now."""

    def left(self) -> None:
        """It is in none any more; all links are gone."""

    def link_up(self, peer: PeerId) -> None:
        """A link with `peer` stands, or another stream has taken its place."""

    def link_down(self, peer: PeerId) -> None:
        """The link with `peer` is gone, if there was one."""

    def received(self, peer: PeerId, message: BroadcastMessage) -> None:
        """`peer`, with which a link stands, said this."""
