"""``python -m boxship.tools``: the image tools with skopeo's habits."""

import sys

from .main import main

sys.exit(main(called="skopeo"))
