"""The rdma controller: runtime-spec ``linux.resources.rdma`` and its counters (cgroup-v1/rdma.rst; alike on v2)."""

from boxship.errors import InvalidArgument

from .writes import Read, Write, number, table


def writes(resources: "dict[str, object]") -> "list[Write]":
    found: list[Write] = []
    for device, limits in table(resources, "rdma").items():
        if not isinstance(limits, dict):
            raise InvalidArgument(f"linux.resources.rdma.{device} must be an object")
        words = [device]
        for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            value = number(limits, f"rdma.{device}", key)
            if value is not None:
                words.append(f"{word}={value}")
        if len(words) > 1:
            found.append(("rdma", "rdma.max", " ".join(words)))
    return found


def stats(read: Read, file: str) -> "dict[str, dict[str, int]]":
    """``rdma.current`` or ``rdma.max`` by device; the kernel's ``max`` is 2**32 - 1, as runc has it."""
    found: dict[str, dict[str, int]] = {}
    for line in read("rdma", file).splitlines():
        device, *words = line.split()
        values = (word.split("=", 1) for word in words if "=" in word)
        found[device] = {key: 2**32 - 1 if value == "max" else int(value) for key, value in values}
    return found
