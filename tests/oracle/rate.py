"""The section Learning rates of docs/arithmetic.md: the rate of a step in billionths. update: a recipe's mapping `update`."""

from decimal import ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction

from . import arithmetic as a

ONE_CYCLE_WARM_UP = {"at": "30%"}


def billionths(decimal):
    """A decimal of at most nine places."""
    value = Decimal(str(decimal)) * 10**9
    assert value == int(value) >= 0
    return int(value)


def cosine_of(fraction):
    """cos(pi * fraction), 0 <= fraction <= 1/2, as a Decimal: the power series at 60 digits."""
    with localcontext() as context:
        context.prec = 60
        # Machin: pi = 16 atan(1/5) - 4 atan(1/239)
        def arctangent(n):
            return sum((-1)**k / (Decimal(2 * k + 1) * Decimal(n)**(2 * k + 1)) for k in range(45))
        x = (16 * arctangent(5) - 4 * arctangent(239)) * Decimal(fraction.numerator) / Decimal(fraction.denominator)
        term, total = Decimal(1), Decimal(1)
        for k in range(1, 40):
            term *= -x * x / (2 * k * (2 * k - 1))
            total += term
        return total


def _cosine_entry(i):
    """round(cos(pi i / 512) * 2^30)."""
    value = cosine_of(Fraction(i, 512)) * 2**30 + Decimal("0.5")
    return int(value.to_integral_value(rounding=ROUND_FLOOR))


COSINE_TABLE = [_cosine_entry(i) for i in range(257)]


def cosine(x, steps):
    """cos(pi x / steps) with 30 fraction bits."""
    angle = (x << 17) // steps
    u = angle if angle <= 1 << 16 else (1 << 17) - angle
    i, r = u >> 8, u & 255
    value = COSINE_TABLE[i] + (((COSINE_TABLE[i + 1] - COSINE_TABLE[i]) * r) >> 8 if r else 0)
    return value if angle <= 1 << 16 else -value


def annealed(start, end, x, steps):
    """A(start, end, x, steps)."""
    return end + (((start - end) * ((1 << 30) + cosine(x, steps))) >> 31)


def linear(top, last, x, steps):
    change = abs(last - top)
    q, p = divmod(change, steps)
    moved = q * x + p * x // steps
    return top - moved if top >= last else top + moved


def _curve(update, step, x, steps, position):
    """The rate that the curve has after x of its steps."""
    kind, lr = update.get("schedule", "steps"), update.get("lr", 0.1)
    if kind == "steps":
        if isinstance(lr, list):
            lr = [entry for entry in lr if position(entry) <= step][-1]["lr"]
        return billionths(lr)
    top, last = billionths(lr), billionths(update.get("final_lr", 0))
    if kind == "linear":
        return linear(top, last, x, steps)
    if kind == "cosine":
        return annealed(top, last, x, steps)
    assert kind == "one-cycle"
    return annealed(top, top // 250000, x, steps)


def rate_at(update, step, steps_per_epoch, steps):
    """The rate of a step of a run of so many steps."""
    def position(entry):
        return a.position_step(entry, steps_per_epoch, steps)

    cycle = update.get("schedule") == "one-cycle"
    warm = position(update.get("warmup", ONE_CYCLE_WARM_UP if cycle else {"epoch": 0}))
    assert warm < steps or warm == 0
    if step >= warm:
        return _curve(update, step, step - warm, steps - warm, position)
    if cycle:
        top = billionths(update.get("lr", 0.1))
        return annealed(top // 25, top, step, warm)
    return _curve(update, step, 0, steps - warm, position) * (step + 1) // warm
