"""`python -m semaphone` is the command `semaphone`."""

import sys

from semaphone.cli import main

sys.exit(main())
