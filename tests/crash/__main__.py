"""`python -m tests.crash`: see chaos.py."""

import sys

if __name__ == "__main__":  # each process that is forked looks at this file, and must not import all of it
    from tests.crash.chaos import main

    sys.exit(main())
