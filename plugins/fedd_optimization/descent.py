"""Decentralised gradient descent: methods without memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from fedd.api import Message, RunContext
from fedd_optimization import bounds, modes
from fedd_optimization.iteration import Iteration, Iterative, vectors
from fedd_optimization.mixing import combine
from fedd_optimization.outlook import Theory


@dataclass(frozen=True)
class DGD(Iterative):
    """Decentralised gradient descent: average with the neighbours, step down one's own gradient.

    Update, W the mixing matrix and a the step:
    standard: x(k+1) = W x(k) - a g(x(k)); combine then adapt (cta): z = W x(k), x(k+1) = z - a g(z);
    adapt then combine (atc): x(k+1) = W (x(k) - a g(x(k))).
    Message: the iterate (atc: after its step). Rate: linear with a constant step on strongly convex
    objectives, to a point whose distance from the optimum is proportional to the step.
    A death: no memory, so the survivors go on to the fixed point of their own graph and objectives.

    Source: A. Nedic, A. Ozdaglar, "Distributed subgradient methods for multi-agent optimization", IEEE
    Trans. Automatic Control 54 (2009); cta and atc: F. S. Cattivelli, A. H. Sayed, "Diffusion LMS
    strategies for distributed estimation", IEEE Trans. Signal Processing 58 (2010); the fixed point:
    K. Yuan, Q. Ling, W. Yin, "On the convergence of decentralized gradient descent", SIAM J. Optim. 26
    (2016).
    """

    name: ClassVar[str] = "dgd"
    contract: ClassVar[str] = "survivors"
    both_ways: ClassVar[bool] = False

    form: Literal["standard", "cta", "atc"] = field(
        default="standard", metadata={"help": "order of averaging and step; NVFlare's is cta"}
    )
    batch: int = field(default=0, metadata={"help": "samples of a gradient, 0: all of the device"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 0:
            raise ValueError(f"batch must be 0 or more, not {self.batch}")

    def theory(self) -> Theory:
        """By the form."""
        if self.form == "standard":
            return Theory(bounds.GRADIENT, modes.STANDARD)
        return Theory(bounds.DIFFUSION, modes.DIFFUSION)

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        x = await iteration.begin()
        iteration.predict(x)
        for _ in iteration.steps():
            match self.form:
                case "standard":
                    gradient = iteration.gradient(x, self.batch)
                    sent, heard = x, await iteration.mix(x)
                    x = combine(x, heard) - self.step * gradient
                case "cta":
                    sent, heard = x, await iteration.mix(x)
                    x = combine(x, heard)
                    gradient = iteration.gradient(x, self.batch)
                    x = x - self.step * gradient
                case "atc":
                    gradient = iteration.gradient(x, self.batch)
                    sent = x - self.step * gradient
                    heard = await iteration.mix(sent)
                    x = combine(sent, heard)
            await iteration.end_step(x, gradient, vectors(heard), sent)
        return await iteration.finish(x)


@dataclass(frozen=True)
class DSGD(Iterative):
    """Decentralised stochastic gradient descent, with minibatches and local steps.

    Update: `local_steps` times x <- x - a g(x; minibatch), then x <- W x.
    Message: the iterate after its local steps. Rate: O(1/sqrt(n T)) for smooth non-convex objectives, as
    a central one with n times the batch, once T is large enough; local steps on unlike data pull the
    nodes apart (K-GT corrects that).
    A death: no memory, so the survivors go on with their own data.

    Source: X. Lian, C. Zhang, H. Zhang, C.-J. Hsieh, W. Zhang, J. Liu, "Can decentralized algorithms
    outperform centralized algorithms?", NeurIPS 2017; local steps: A. Koloskova, N. Loizou, S. Boreiri,
    M. Jaggi, S. U. Stich, "A unified theory of decentralized SGD with changing topology and local
    updates", ICML 2020.
    """

    name: ClassVar[str] = "dsgd"
    contract: ClassVar[str] = "survivors"
    both_ways: ClassVar[bool] = False

    batch: int = field(default=32, metadata={"help": "samples of a gradient, 0: all of the device"})
    local_steps: int = field(default=1, metadata={"help": "steps between two exchanges"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 0:
            raise ValueError(f"batch must be 0 or more, not {self.batch}")
        if self.local_steps < 1:
            raise ValueError(f"local_steps must be at least 1, not {self.local_steps}")

    def theory(self) -> Theory:
        """Of exact gradients; minibatches end in a neighbourhood of the same limit."""
        return Theory(bounds.MEAN, modes.local_descent(self.local_steps))

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        x = await iteration.begin()
        iteration.predict(x)
        for _ in iteration.steps():
            for _ in range(self.local_steps):
                gradient = iteration.gradient(x, self.batch)
                x = x - self.step * gradient
            heard = await iteration.mix(x)
            sent, x = x, combine(x, heard)
            await iteration.end_step(x, gradient, vectors(heard), sent)
        return await iteration.finish(x)
