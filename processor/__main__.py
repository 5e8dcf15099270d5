"""`python -m processor` is `mlade`."""

import os
import signal
import sys


def main() -> None:
    """Run the command in `sys.argv`; the console script."""
    if sys.argv[1:2] in (["run"], ["dashboard"]):  # services: a stop that comes while they load is a stop, no failure
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))  # there is nothing to finish; each sets its own later
    from processor import cli  # noqa: PLC0415 - it takes 0.2 s to load

    cli.main()


if __name__ == "__main__":
    main()
