"""`python -m lifelong` is the command line."""

import sys

from lifelong.cli import main

if __name__ == "__main__":
    sys.exit(main())
