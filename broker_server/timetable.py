"""When a timetable's next time is. The only home of `cronsim`, which reads cron expressions as Debian's cron does.

Where clocks are put forward a time that does not exist comes when it would have been; where they are put back a time
that comes twice counts once.
"""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from broker_server.core.events import Timetable
from fd_protocol.errors import InvalidValueError


def next_time_ms(timetable: Timetable, after_ms: int) -> int:
    """Return the first time of `timetable` after `after_ms`, both in UTC milliseconds.

    Raises:
        InvalidValueError: no such zone, no cron expression, or one that never comes.
    """
    try:
        zone = ZoneInfo(timetable.zone)
    except (KeyError, ValueError, OSError) as error:  # not found, no name of a zone, a folder of zones
        raise InvalidValueError(f"no time zone {timetable.zone!r}") from error
    after = datetime.fromtimestamp(after_ms // 1000, timezone.utc).astimezone(zone)
    try:
        return round(next(CronSim(timetable.cron, after)).timestamp() * 1000)
    except CronSimError as error:
        raise InvalidValueError(f"{timetable.cron!r} is no cron expression: {error}") from error
    except StopIteration as error:
        raise InvalidValueError(f"{timetable.cron!r} never comes") from error


def check_timetable(timetable: Timetable) -> None:
    """Refuse a timetable that has no next time.

    Raises:
        InvalidValueError: so.
    """
    next_time_ms(timetable, 0)
