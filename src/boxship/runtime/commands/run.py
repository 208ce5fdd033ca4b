"""``run``: create and start; then wait, pass signals and the terminal on, and delete."""

from boxship.errors import BoxshipError

from ..main import Call
from ..start import StartFailed
from .create import create


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
        container.start()
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
