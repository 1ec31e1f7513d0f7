"""The one rule for everything that happens every so many steps."""


def due(step: int, every: int, last: int) -> bool:
    """Whether something is to happen after `step` updates: every `every`, and after the last.

    Args:
      step: updates done, at least 1.
      every: the interval in steps, at least 1.
      last: the run's last step.
    """
    return step % every == 0 or step == last
