"""Hold the watermark at the oldest row a stage has not let go of yet.

A stage that waits for its rows to be complete gives them on with the event times they have. Whatever
stands after it must not believe that time has passed them: the output watermark has to stay at the
oldest one. Beam's model has this (a timer's output timestamp, `withOutputTimestamp` in Java); the Python
SDK 2.77 sends it over the wire but always sets it to the timer's own time.
"""

from __future__ import annotations

from typing import Any

from apache_beam.transforms import userstate
from apache_beam.utils.timestamp import Timestamp


def can_hold(timer: Any) -> bool:
    """Whether a timer can hold the watermark at another time than its own.

    Every runner that talks to the SDK over the Fn API can (FnApiRunner, Prism, Flink); the in-process
    runner that `TestStream` uses cannot.
    """
    return hasattr(timer, "_timer_coder_impl")


def set_timer_with_hold(timer: Any, fire: Timestamp, hold: Timestamp, tag: str = "") -> None:
    """Set an event-time timer that fires at `fire` and holds the output watermark at `hold` until then.

    Args:
        timer: what `DoFn.TimerParam` gives; `can_hold` says whether this works.
        fire: when to fire, in event time.
        hold: at most `fire`.
        tag: which timer of its family, as in `timer.set`.
    """
    # The same message `timer.set` sends, with its hold.
    message = userstate.Timer(
        user_key=timer._key,
        dynamic_timer_tag=tag,
        windows=(timer._window,),
        clear_bit=False,
        fire_timestamp=fire,
        hold_timestamp=hold,
        paneinfo=timer._paneinfo,
    )
    timer._timer_coder_impl.encode_to_stream(message, timer._output_stream, True)
    timer._output_stream.maybe_flush()
