"""``python -m boxship.tools.umoci``: umoci's command line."""

import sys

from .main import main

sys.exit(main())
