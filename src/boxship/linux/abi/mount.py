"""Mount flags and attributes, and the option words of mount(8) that runtime-spec's ``mounts[].options`` uses.

Values from linux/mount.h; what the words mean from mount(8) and runtime-spec, Linux mount options.
"""

import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 16, 32, 64, 128
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_MOVE, MS_REC = 1024, 2048, 4096, 8192, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME = 1 << 21, 1 << 24

MNT_DETACH = 2

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME = 0x10, 0x20, 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

RESOLVE_IN_ROOT = 0x10
O_PATH, O_DIRECTORY, O_NOFOLLOW = os.O_PATH, os.O_DIRECTORY, os.O_NOFOLLOW  # not the same on every architecture

# word: (attributes to set, attributes to clear)
ATTRIBUTES = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "atime": (0, MOUNT_ATTR_ATIME),
    "relatime": (0, MOUNT_ATTR_ATIME),
    "norelatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "nostrictatime": (0, MOUNT_ATTR_ATIME),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
}

# word: (propagation, recursive)
PROPAGATION = {
    "private": (MS_PRIVATE, False),
    "rprivate": (MS_PRIVATE, True),
    "slave": (MS_SLAVE, False),
    "rslave": (MS_SLAVE, True),
    "shared": (MS_SHARED, False),
    "rshared": (MS_SHARED, True),
    "unbindable": (MS_UNBINDABLE, False),
    "runbindable": (MS_UNBINDABLE, True),
}

# Flags of the super block: fsconfig(FSCONFIG_SET_FLAG) takes them by name.
SUPERBLOCK = ("sync", "dirsync", "mand", "lazytime", "silent")

# Words that say nothing to the kernel: the default, or a hint for another program.
NOTHING = ("defaults", "async", "nomand", "nolazytime", "loud", "noiversion", "iversion", "acl", "noacl")

# The same attributes as flags of mount(2), for the fall-back.
LEGACY_FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
    "sync": MS_SYNCHRONOUS,
    "dirsync": MS_DIRSYNC,
    "mand": MS_MANDLOCK,
}
