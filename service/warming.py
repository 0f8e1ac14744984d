"""Before the first request: the weights that requests without a seed will need are prepared, as far as they fit.

Such a request gets one of a few seeds, and a smaller ensemble of a seed is the beginning of a larger one, so the first
members of these seeds serve every request that leaves out the seed. Others are prepared when they are asked for.
"""

import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ccnet.plan_cache import PlanCache
from service.served import ServedModel

LONGEST_S = 5.0  # after this no further sequence is begun, so that a large pool cannot hold up the start


Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the pool came to: sequences prepared and wanted, the bytes that the cache holds, the time it took."""

    sequences: int
    wanted: int
    plan_cache_bytes: int
    seconds: float


def at_once(step: Step) -> None:
    """Run a step here and now."""
    step()


def prepare_pool(
    models: Sequence[ServedModel],
    plans: PlanCache,
    *,
    seeds: int,
    members: int,
    run: Callable[[Step], None] = at_once,
) -> Prepared:
    """Prepare the sequences of the pool, and stop before one would push out another.

    Args:
        models: In the order in which they get room.
        plans: Where the models keep what is prepared.
        seeds: Of the pool, from 0 on.
        members: Of each seed.
        run: Runs a step, the preparation of one sequence; says where, and whether.
    """
    started = time.monotonic()
    with_sequences = [model for model in models if model.takes_sequences]
    pool = (
        (model, model.sample(members, seed)[number])  # the first members of all seeds first: most requests want those
        for model, number, seed in itertools.product(with_sequences, range(members), range(seeds))
    )
    prepared = largest = 0
    for model, sequence in pool:
        before = plans.stats.nbytes
        if before + largest >= plans.max_bytes or time.monotonic() - started > LONGEST_S:
            break
        run(partial(model.keep, [sequence]))
        largest = max(largest, plans.stats.nbytes - before)
        prepared += 1
    seconds = round(time.monotonic() - started, 2)
    return Prepared(prepared, len(with_sequences) * seeds * members, plans.stats.nbytes, seconds)


def chosen_seed(seed: int | None, pool: int) -> int:
    """The seed of a request; for one that names none any of 0 to pool - 1, evenly, or of 32 bits with an empty pool.

    Drawn and not dealt out in turn: clients that alternate between kinds of requests would meet half of the seeds.
    """
    if seed is not None:
        return seed
    return secrets.randbelow(pool or 2**32)
