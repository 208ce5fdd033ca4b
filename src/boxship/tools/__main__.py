"""``python -m boxship.tools``: the image tools with skopeo's habits."""

from .main import program

program("skopeo")
