"""Running logged searches again: the same answer, or what has changed since."""

from soutu.replay.again import Again
from soutu.replay.causes import Cause, Now
from soutu.replay.run import Counted, Replay, compare, replay

__all__ = ["Again", "Cause", "Counted", "Now", "Replay", "compare", "replay"]
