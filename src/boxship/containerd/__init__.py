"""containerd's services: what `boxship engine` embeds and ``boxship-containerd`` serves.

Start at `composition.open_services`, which puts everything together.
"""
