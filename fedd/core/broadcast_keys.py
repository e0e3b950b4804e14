"""What is signed of broadcasts: headers by their origin, acknowledgements by whoever delivered."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from fedd.api.errors import ProtocolError
from fedd.api.types import PeerId
from fedd.core.broadcast_messages import (
    ACK_DOMAIN,
    BROADCAST_DOMAIN,
    Header,
    Post,
    decode_header,
    encode_ack,
    encode_header,
)
from fedd.core.broadcast_types import BroadcastId

# Broadcasts whose acknowledgements come in these moments, of all members each: some 100 bytes.
STATEMENTS: Final = 64


class BroadcastKeys:
    """Signs and verifies within one federation.

    `seal(domain, data)` signs with this node's key; `unseal(domain, sealed, peer)` gives the data that `peer`
    has signed, or raises FeddError.
    """

    def __init__(
        self,
        federation: str,
        seal: Callable[[str, bytes], bytes],
        unseal: Callable[[str, bytes, PeerId], bytes],
    ) -> None:
        self._federation = federation
        self._seal = seal
        self._unseal = unseal
        # The same for all who acknowledge a broadcast.
        self._statement = lru_cache(STATEMENTS)(lambda name: encode_ack(federation, *name))

    def sign(self, header: Header) -> bytes:
        """The header as this node's own broadcast carries it."""
        return self._seal(BROADCAST_DOMAIN, encode_header(self._federation, header))

    def open(self, post: Post) -> Header:
        """What the origin has signed.

        Raises:
            FeddError: it has not, or something else, or for another federation.
        """
        header = decode_header(self._federation, self._unseal(BROADCAST_DOMAIN, post.sealed, post.origin))
        if (header.epoch, header.seq) != (post.epoch, post.seq):
            raise ProtocolError(f"a broadcast of {post.origin} is not the one that it is said to be")
        return header

    def sign_ack(self, name: BroadcastId) -> bytes:
        """This node's acknowledgement."""
        return self._seal(ACK_DOMAIN, self._statement(name))

    def verify_ack(self, name: BroadcastId, peer: PeerId, sealed: bytes) -> None:
        """Check the acknowledgement of `peer`.

        Raises:
            FeddError: it is forged, or for something else.
        """
        if self._unseal(ACK_DOMAIN, sealed, peer) != self._statement(name):
            raise ProtocolError(f"an acknowledgement of {peer} is for something else")
