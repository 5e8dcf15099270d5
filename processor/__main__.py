"""`python -m processor` is `mlade`."""

from processor.cli import main

main()
