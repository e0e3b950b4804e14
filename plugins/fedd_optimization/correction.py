"""Methods that correct the bias of gradient descent by a memory of the iterates' differences.

Both are written with the memory as a sum of transfers over edges (`mixing.Books`), which is the published
update, summed up: the memories of all nodes sum to zero, and at the fixed point each one equals what its
node's gradient asks for, so the gradients sum to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedd.api import Message, RunContext
from fedd_optimization import bounds, modes
from fedd_optimization.iteration import Iteration, Iterative, vectors
from fedd_optimization.mixing import combine
from fedd_optimization.outlook import Theory


@dataclass(frozen=True)
class EXTRA(Iterative):
    """EXTRA: gradient descent with a memory that takes its bias away.

    Update: x(1) = W x(0) - a g(x(0)), x(k+2) = (I + W) x(k+1) - (I + W)/2 x(k) - a (g(x(k+1)) - g(x(k)));
    summed up, x(k+1) = W x(k) - a g(x(k)) - q(k), q(k+1) = q(k) + (I - W)/2 x(k), q(0) = 0.
    Message: the iterate. Rate: linear to the exact optimum on smooth strongly convex objectives.
    A death: the run starts a new epoch from the iterates it has, with empty memories (contract restart),
    and ends at the survivors' optimum. With the contract survivors it goes on, and the gone neighbour's
    entries of q are deleted: the same optimum.

    Source: W. Shi, Q. Ling, G. Wu, W. Yin, "EXTRA: an exact first-order algorithm for decentralized
    consensus optimization", SIAM J. Optim. 25 (2015), equations (2.11) and (2.13).
    """

    name: ClassVar[str] = "extra"
    contract: ClassVar[str] = "restart"

    def theory(self) -> Theory:
        """Of exact gradients."""
        return Theory(bounds.GRADIENT, modes.EXTRA)

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        iteration.needs_both_ways()
        x = await iteration.begin()
        iteration.predict(x)
        books = iteration.books()
        for _ in iteration.steps():
            gradient = iteration.gradient(x)
            sent, heard = x, await iteration.mix(x, agreed=True)
            x = combine(x, heard) - self.step * gradient - books.total
            books.transfer(sent, heard, share=0.5)
            iteration.settle(books)
            await iteration.end_step(x, gradient, vectors(heard), sent)
        return await iteration.finish(x)


@dataclass(frozen=True)
class ExactDiffusion(Iterative):
    """Exact diffusion (D2): adapt, correct, combine.

    Update: psi(k+1) = x(k) - a g(x(k)); phi(k+1) = psi(k+1) + x(k) - psi(k), psi(0) = x(0);
    x(k+1) = (I + W)/2 phi(k+1). The correction x - psi is minus the books of the transfers in the last
    line. Message: phi. Rate: linear to the exact optimum on smooth strongly convex objectives, for
    steps below 2 / L; D2 is the same with W in place of (I + W)/2.
    A death: a new epoch from the iterates it has, with empty memories (contract restart), to the
    survivors' optimum. With the contract survivors it goes on, the gone neighbour's entries are deleted:
    the same optimum.

    Source: K. Yuan, B. Ying, X. Zhao, A. H. Sayed, "Exact diffusion for distributed optimization and
    learning, part I", IEEE Trans. Signal Processing 67 (2019), algorithm 1; D2: H. Tang, X. Lian, M. Yan,
    C. Zhang, J. Liu, ICML 2018; the bound: Z. Li, W. Shi, M. Yan (NIDS), IEEE Trans. Signal Processing 67
    (2019).
    """

    name: ClassVar[str] = "exact-diffusion"
    contract: ClassVar[str] = "restart"

    def theory(self) -> Theory:
        """Of exact gradients."""
        return Theory(bounds.DIFFUSION, modes.EXACT_DIFFUSION)

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        iteration.needs_both_ways()
        x = await iteration.begin()
        iteration.predict(x)
        books = iteration.books()
        for _ in iteration.steps():
            gradient = iteration.gradient(x)
            sent = x - self.step * gradient - books.total
            heard = await iteration.mix(sent, agreed=True)
            x = (sent + combine(sent, heard)) / 2
            books.transfer(sent, heard, share=0.5)
            iteration.settle(books)
            await iteration.end_step(x, gradient, vectors(heard), sent)
        return await iteration.finish(x)
