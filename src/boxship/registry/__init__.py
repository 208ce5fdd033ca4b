"""``boxship registry``: a registry of the OCI distribution-spec 1.1 in one directory.

Stands for docker-registry; see docs/how-to/serve-a-registry.md. From the wire down:

- `server` listens, `auth` and `anonymous` say who may, `routes` has the API's table; `errors` the words for what goes
  wrong;
- `manifests` reads what is pushed, `ranges` and `uploads` are the two protocols with a state;
- `registry` is what a registry does, in threads; `metadata` says who owns which content, and `boxship.image.content`
  has the bytes; `collect` removes what nobody needs.
"""
