"""The image tools: ``boxship-image``, with skopeo's, umoci's and image-tools' verbs (docs/decisions/0017).

A verb is a module with a ``COMMAND`` (see `boxship.tools.command`), imported when the verb is called.
The work is in `boxship.image`; a verb reads its command line, calls the library and prints.
"""
