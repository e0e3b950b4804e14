"""Algorithms that fail in every way that a plugin can."""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass
from typing import ClassVar

from fedd.api import Algorithm, Message, RunContext, hookimpl


async def count_neighbors(ctx: RunContext) -> int:
    """How many neighbours are left. Who has counted waits for the others: one that ends is none any more."""
    left = len(ctx.neighbors)
    await ctx.exchange(1)
    return left


@dataclass(frozen=True)
class Raises:
    """Raises on the node whose input is 1, after two exchanges."""

    name: ClassVar[str] = "raises"

    async def run(self, ctx: RunContext) -> Message:
        for _ in range(2):
            await ctx.exchange(1)
        if ctx.input == 1:
            raise ValueError("the sensor is on fire")
        for _ in range(5):
            await ctx.exchange(1)
        return await count_neighbors(ctx)


@dataclass(frozen=True)
class Hangs:
    """Never comes back on the node whose input is 1: it burns its processor for ever."""

    name: ClassVar[str] = "hangs"

    async def run(self, ctx: RunContext) -> Message:
        await ctx.exchange(1)
        while ctx.input == 1:
            pass
        await ctx.exchange(1)
        return await count_neighbors(ctx)


@dataclass(frozen=True)
class Crashes:
    """Ends its process on the node whose input is 1: by exit, or by a bad pointer."""

    how: str = "exit"
    name: ClassVar[str] = "crashes"

    async def run(self, ctx: RunContext) -> Message:
        await ctx.exchange(1)
        if ctx.input == 1:
            if self.how == "exit":
                os._exit(3)
            ctypes.string_at(0)
        await ctx.exchange(1)
        return await count_neighbors(ctx)


@dataclass(frozen=True)
class Hoards:
    """Takes half as much memory again as the device has, on the node whose input is 1."""

    name: ClassVar[str] = "hoards"

    async def run(self, ctx: RunContext) -> Message:
        await ctx.exchange(1)
        if ctx.input == 1:
            quarter = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
            held = [mmap.mmap(-1, quarter, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(6)]
            await ctx.exchange(len(held))
        else:
            await ctx.exchange(1)
        return await count_neighbors(ctx)


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    """Register them all."""
    return [Raises, Hangs, Crashes, Hoards]
