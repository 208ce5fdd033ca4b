"""What ``ps`` shows of a shim: its argument memory is overwritten.

The zygote is started with a long padding argument (api.task.zygote.PADDING); every shim forked from it inherits
that memory and writes its own command line there, so that ``ps auxw | grep containerd-shim`` lists one shim a
container, as with the real one.
prctl(PR_SET_MM_ARG_START) would need CAP_SYS_RESOURCE, writing one's own memory needs nothing:
/proc/self/stat says where the arguments are (fields 48 and 49, proc(5)), /proc/self/mem takes the bytes.
The kernel shows that memory as it is, as long as its last byte is NUL (fs/proc/base.c, get_mm_cmdline).
"""

import os


def set_title(arguments: "list[str]", name: str) -> None:
    """Show ``arguments`` as this process's command line and ``name`` (15 bytes) as its name.

    A title that cannot be set is not worth a failed container: errors are swallowed here.
    """
    text = b"\0".join(os.fsencode(argument) for argument in arguments)
    try:
        with open("/proc/self/stat", "rb") as file:
            # The name in parentheses may hold spaces: count fields after the last one.
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        room = end - start - 1
        fd = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, text[:room].ljust(room + 1, b"\0"), start)
        finally:
            os.close(fd)
        with open("/proc/self/comm", "wb") as file:
            file.write(os.fsencode(name)[:15])
    except (OSError, ValueError, IndexError):
        return
