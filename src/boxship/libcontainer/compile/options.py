"""Mount option words, sorted into what they mean.

The words of runc and crun; any other is data for the file system.
"""

from boxship.linux.abi.mount import ATTRIBUTES, NOTHING, PROPAGATION, SUPERBLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Options:
    """Parsed mount options.

    ``set``/``clear`` are mount attributes, ``recursive_set``/``recursive_clear`` those of the ``r``-words (rro);
    ``propagation`` are (flag, recursive) pairs; ``data`` the file system's own options, None for one without a
    value; ``idmap`` is "", "idmap" or "ridmap", ``idmap_text`` what follows its ``=``;
    ``source_no_follow``, ``target_no_follow`` and ``copy_symlink`` are crun's src-nofollow, dest-nofollow and
    copy-symlink.
    """

    __slots__ = (
        "bind",
        "clear",
        "copy_symlink",
        "copy_up",
        "data",
        "idmap",
        "idmap_text",
        "propagation",
        "recursive",
        "recursive_clear",
        "recursive_set",
        "remount",
        "set",
        "source_no_follow",
        "target_no_follow",
    )

    def __init__(self) -> None:
        self.set = 0
        self.clear = 0
        self.recursive_set = 0
        self.recursive_clear = 0
        self.propagation: list[tuple[int, bool]] = []
        self.bind = False
        self.recursive = False
        self.remount = False
        self.copy_up = False
        self.copy_symlink = False
        self.source_no_follow = False
        self.target_no_follow = False
        self.idmap = ""
        self.idmap_text = ""
        self.data: list[tuple[str, str | None]] = []


# word: the attribute of Options that it turns on
_SWITCHES = {
    "bind": "bind",
    "tmpcopyup": "copy_up",
    "copy-symlink": "copy_symlink",
    "src-nofollow": "source_no_follow",
    "dest-nofollow": "target_no_follow",
    "remount": "remount",
}

_parsed: "dict[tuple[str, ...], Options]" = {}
_MOST = 256


def parse(words: "Iterable[str]") -> Options:
    """Sort the words; a later one wins over an earlier one that says the opposite.

    The answer is shared: the same few lists of words come with every container, and twice in each.
    """
    key = tuple(words)
    options = _parsed.get(key)
    if options is None:
        if len(_parsed) >= _MOST:
            _parsed.clear()
        options = _parsed[key] = _parse(key)
    return options


def _parse(words: "tuple[str, ...]") -> Options:
    options = Options()
    for word in words:
        if word in ATTRIBUTES:
            set, clear = ATTRIBUTES[word]
            options.set = options.set & ~(clear | set) | set
            options.clear = options.clear & ~set | clear
        elif word in PROPAGATION:
            options.propagation.append(PROPAGATION[word])
        elif word in _SWITCHES:
            setattr(options, _SWITCHES[word], True)
        elif word == "rbind":
            options.bind = options.recursive = True
        elif word.startswith(("idmap", "ridmap")) and word.partition("=")[0] in ("idmap", "ridmap"):
            options.idmap, _, options.idmap_text = word.partition("=")
        elif word in SUPERBLOCK:
            options.data.append((word, None))
        elif word in NOTHING or word.startswith(("x-", "X-", "comment=")) or not word:
            continue
        elif word.startswith("r") and word[1:] in ATTRIBUTES:
            set, clear = ATTRIBUTES[word[1:]]
            options.recursive_set = options.recursive_set & ~(clear | set) | set
            options.recursive_clear = options.recursive_clear & ~set | clear
        else:
            key, equals, value = word.partition("=")
            options.data.append((key, value if equals else None))
    return options
