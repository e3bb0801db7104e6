"""Repair times: Weibull draws through a table of quantiles, the same integers on every machine."""

from __future__ import annotations

import decimal
import functools

from sim.kernel import chance

_ONE = 1 << 20
_TAIL = 1 << 11  # the last interval ends at the quantile 1 - 1 / (TABLE * _TAIL)


@functools.cache
def quantiles(shape: str) -> tuple[int, ...]:
    """Quantiles of (-ln(1 - u)) ** (1 / shape) at u = k / TABLE, in 1/2**20 of the scale; TABLE + 1 of them."""
    with decimal.localcontext() as context:
        context.prec = 18
        power = 1 / decimal.Decimal(shape)
        size = decimal.Decimal(chance.TABLE)
        rest = [(size - k) / size for k in range(chance.TABLE)] + [1 / (size * _TAIL)]
        return tuple(int((-left.ln()) ** power * _ONE) if left < 1 else 0 for left in rest)


def weibull_ns(shape: float, scale_ns: int, cap_ns: int | None, *keys: int) -> int:
    """A duration for (seed, purpose, keys...), ns: linear between quantiles, never above the cap."""
    number = chance.draw(*keys)
    table = quantiles(repr(shape))
    k = ((number >> 32) * chance.TABLE) >> 32
    q = table[k] + (((table[k + 1] - table[k]) * (number & (_ONE - 1))) >> 20)
    length_ns = (scale_ns * q) >> 20
    return length_ns if cap_ns is None else min(length_ns, cap_ns)
