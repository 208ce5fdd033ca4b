"""``python -m boxship.shim``: the same program as the installed containerd-shim-boxship-v2."""

import sys

from .cold import main

sys.exit(main(sys.argv[1:]))
