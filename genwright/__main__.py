"""`python -m genwright` is the command line."""

import sys

from genwright.cli.main import main

sys.exit(main())
