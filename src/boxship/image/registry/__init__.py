"""Registries: finding them, proving who we are, and moving manifests and blobs (distribution-spec 1.1).

Start at ``pull`` and ``push``; ``client.Repository`` has one method for each endpoint of the specification,
``session.Session`` is the HTTP below it (tokens, redirects, retries), ``hosts`` says where a registry answers and
``credentials`` what to say there.
Everything is synchronous and meant for worker threads; nothing here is imported before the first pull.
"""
