"""The one rule for everything that happens every so many steps."""

from fractions import Fraction


def due(step: int, every: int | Fraction, last: int) -> bool:
    """Whether something is to happen after `step` updates: every `every`, and after the last.

    Of an interval that is not whole, such as an epoch of 468.75 steps, it is the first step at or
    after each multiple: 469, 938, 1407, 1875.

    Args:
      step: updates done, at least 1.
      every: the interval in steps, above 0.
      last: the run's last step.
    """
    return step // every > (step - 1) // every or step == last
