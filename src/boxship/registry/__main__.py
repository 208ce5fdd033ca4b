"""``python -m boxship.registry``."""

import sys

from .main import main

sys.exit(main())
