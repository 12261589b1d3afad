"""`python -m looped` is the command `looped`."""

import sys

from looped.cli import main

if __name__ == "__main__":  # not in the processes that prepare batches, which import this file too
    sys.exit(main())
