"""umoci's verbs: making and changing images in an OCI layout.

`VERBS` is umoci's program, `RAW` what is below its verb ``raw``. Importing this package imports nothing else; a
verb's module is imported when it is called and has a ``COMMAND`` (`boxship.tools.command`).
"""

# verb -> the module that has its COMMAND, and the line that the program's help shows
VERBS = {
    "config": ("boxship.tools.umoci.config", "modifies the image configuration of an OCI image"),
    "gc": ("boxship.tools.umoci.gc", "garbage-collects an OCI image's blobs"),
    "init": ("boxship.tools.umoci.init", "create a new OCI layout"),
    "insert": ("boxship.tools.umoci.insert", "insert content into an OCI image"),
    "list": ("boxship.tools.umoci.list", "lists the set of tags in an OCI layout"),
    "ls": ("boxship.tools.umoci.list", "lists the set of tags in an OCI layout"),
    "new": ("boxship.tools.umoci.new", "creates a blank tagged OCI image"),
    "raw": ("boxship.tools.umoci.raw", "advanced internal image tooling"),
    "remove": ("boxship.tools.umoci.remove", "removes a tag from an OCI image"),
    "repack": ("boxship.tools.umoci.repack", "repacks an OCI runtime bundle into a reference"),
    "rm": ("boxship.tools.umoci.remove", "removes a tag from an OCI image"),
    "stat": ("boxship.tools.umoci.stat", "displays status information of an image manifest"),
    "tag": ("boxship.tools.umoci.tag", "creates a new tag in an OCI image"),
    "unpack": ("boxship.tools.umoci.unpack", "unpacks a reference into an OCI runtime bundle"),
}
RAW = {
    "add-layer": ("boxship.tools.umoci.raw_add_layer", "add a layer archive verbatim to an image"),
    "config": ("boxship.tools.umoci.raw_runtime_config", "generates an OCI runtime configuration for an image"),
    "mtree-validate": ("boxship.tools.umoci.raw_mtree_validate", "validate an mtree manifest"),
    "runtime-config": (
        "boxship.tools.umoci.raw_runtime_config",
        "generates an OCI runtime configuration for an image",
    ),
    "unpack": ("boxship.tools.umoci.raw_unpack", "unpacks a reference into a root file system"),
}
