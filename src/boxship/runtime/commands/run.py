"""``run``: create and start; then wait, pass signals and the terminal on, and delete."""

import os
from _thread import start_new_thread

from boxship.errors import BoxshipError

from ..main import Call
from ..start import StartFailed
from .create import create
from .start import bound_proxy


def run(call: Call) -> int:
    options = call.options
    detached = options.flag("detach")
    signals = None
    if not detached:
        from ..foreground import Foreground

        signals = Foreground()
    container = None
    try:
        container, terminal = create(call, detached=detached)
        notify = None
        if "NOTIFY_SOCKET" in os.environ:
            notify = bound_proxy(container)
        container.start()
        if notify is not None:
            if detached:
                notify.forward(container.pid, container.pid)
            else:
                # What systemd shall watch is us: we end with the container.
                start_new_thread(notify.forward, (container.pid, os.getpid()))
    except BoxshipError as error:
        if container is not None:
            container.delete(force=True)
        raise StartFailed("run", error, 1) from error
    if signals is None:
        return 0
    try:
        return signals.wait(container.pid, container.console if terminal else -1)
    finally:
        if not options.flag("keep"):
            said = len(container.notes)
            container.delete(force=True)
            for note in container.notes[said:]:
                call.log.error(note)  # a poststop hook that failed
