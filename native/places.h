/* Places inside a file tree: opened by descriptor, made where they are missing, filled, hidden.
 *
 * Included by executor.c. Nothing here trusts a name twice: a name is looked up once, inside the tree
 * (openat2 with RESOLVE_IN_ROOT), and what is then checked or mounted on is the descriptor that came of it. */

#define PATH_SIZE 4096
#define MOST_LINKS 40
#define NAME_FILE 1      /* OpenTarget's kind: a missing last name becomes a file, else a directory */
#define NAME_NOT_PROC 4  /* a place in a proc file system is refused */
#define NAME_NO_FOLLOW 2 /* a link as the last name is the place itself */
#define IN_ROOT 0x10
#define NO_SYMLINKS 0x04
#define NO_MAGICLINKS 0x02
#define BENEATH 0x08
#define NO_XDEV 0x01
#define O_PATH 010000000
#define AT_EMPTY_PATH 0x1000
#define AT_SYMLINK_NOFOLLOW 0x100
#define EEXIST 17
#define EXDEV 18
#define ENOSPC 28
#define EOPNOTSUPP 95
#define PROC_SUPER_MAGIC 0x9fa0
#define PROC_ROOT_INODE 1
#define DEVPTS_SUPER_MAGIC 0x1cd1

/* struct stat, of which we read four fields: where they are differs (asm/stat.h, asm-generic/stat.h). */
struct status { u64 device, inode; u32 mode, uid, gid; u64 rdev; i64 size; };

static i64 status_of(int fd, const char *name, int flags, struct status *s) {
    u64 raw[32];
    u32 *words = (u32 *)raw;
    i64 r = SYS4(newfstatat, fd, name, raw, flags);
    if (r < 0) return r;
    s->device = raw[0];
    s->inode = raw[1];
#if defined(__x86_64__)
    s->mode = words[6];
    s->uid = words[7];
    s->gid = words[8];
    s->rdev = raw[5];
    s->size = (i64)raw[6];
#else
    s->mode = words[4];
    s->uid = words[6];
    s->gid = words[7];
    s->rdev = raw[4];
    s->size = (i64)raw[6];
#endif
    return 0;
}

static u64 text_length(const char *s) {
    u64 n = 0;
    while (s[n]) n++;
    return n;
}

/* `to` = a + "/" + b, without the slash where a is empty; an answer that does not fit is refused. */
static i64 join(char *to, const char *a, u64 size, const char *b) {
    u64 n = 0, m = text_length(b);
    if (size + m + 2 > PATH_SIZE) return -ENAMETOOLONG;
    for (; n < size; n++) to[n] = a[n];
    if (n) to[n++] = '/';
    for (u64 i = 0; i <= m; i++) to[n + i] = b[i];
    return 0;
}

static int target_made; /* the last OpenTarget made its place: it has no mode of its own to keep */

/* Follows the names one by one, links included (they stay inside: ".." stops at the root, an absolute link starts
 * there again), and makes each that is missing, also where a link leads to nothing. */
static i64 walk_and_make(int root, const char *path, u64 kind) {
    static char done[PATH_SIZE], todo[PATH_SIZE], next[PATH_SIZE], link[PATH_SIZE];
    u64 size = 0, links = 0;
    i64 r = join(todo, "", 0, path);
    char *rest = todo;
    done[0] = 0;
    if (r < 0) return r;
    for (;;) {
        while (*rest == '/') rest++;
        if (!*rest) break;
        char *name = rest;
        while (*rest && *rest != '/') rest++;
        if (*rest) *rest++ = 0;
        while (*rest == '/') rest++;
        int final = !*rest;
        if (name[0] == '.' && !name[1]) continue;
        if (name[0] == '.' && name[1] == '.' && !name[2]) {
            while (size && done[size - 1] != '/') size--;
            if (size) size--;
            done[size] = 0;
            continue;
        }
        r = join(next, done, size, name);
        if (r < 0) return r;
        i64 fd = open_at(root, next, O_PATH | O_NOFOLLOW, 0, IN_ROOT | NO_SYMLINKS);
        if (fd == -ENOENT) {
            i64 parent = open_at(root, size ? done : ".", O_PATH | O_DIRECTORY, 0, IN_ROOT | NO_SYMLINKS);
            if (parent < 0) return parent;
            r = final && kind & NAME_FILE ? SYS4(mknodat, parent, name, 0100644, 0)
                                          : SYS3(mkdirat, parent, name, 0755);
            SYS1(close, parent);
            if (r < 0 && r != -EEXIST) return r;
            target_made = final;
        } else if (fd < 0) {
            return fd;
        } else {
            i64 length = final && kind & NAME_NO_FOLLOW ? -EINVAL : SYS4(readlinkat, fd, "", link, sizeof link - 1);
            SYS1(close, fd);
            if (length >= 0) {
                if (++links > MOST_LINKS) return -ELOOP;
                link[length] = 0;
                if (link[0] == '/') size = 0;
                done[size] = 0;
                r = final ? join(next, "", 0, link) : join(next, link, (u64)length, rest);
                if (r < 0) return r;
                for (u64 i = 0; i <= text_length(next); i++) todo[i] = next[i];
                rest = todo;
                continue;
            }
        }
        for (size = 0; next[size]; size++) done[size] = next[size];
        done[size] = 0;
    }
    return open_at(root, size ? done : ".", O_PATH | O_NOFOLLOW, 0, IN_ROOT | NO_SYMLINKS);
}

/* The usual case first: all but the last name is there, and the last one is not, also not as a link to nothing. */
static i64 make_last(int root, const char *path, u64 kind) {
    static char above[PATH_SIZE];
    u64 slash = text_length(path);
    while (slash && path[slash - 1] != '/') slash--;
    if (slash >= PATH_SIZE) return -ENAMETOOLONG;
    for (u64 i = 0; i < slash; i++) above[i] = path[i];
    above[slash] = 0;
    const char *name = path + slash;
    if (!*name || *name == '.') return -ENOENT;
    i64 parent = open_at(root, slash ? above : ".", O_PATH | O_DIRECTORY, 0, IN_ROOT | NO_MAGICLINKS);
    if (parent < 0) return parent;
    i64 r = kind & NAME_FILE ? SYS4(mknodat, parent, name, 0100644, 0) : SYS3(mkdirat, parent, name, 0755);
    if (r == -EEXIST) r = -ENOENT;
    if (r >= 0) {
        target_made = 1;
        r = open_at((int)parent, name, O_PATH | O_NOFOLLOW, 0, BENEATH | NO_SYMLINKS);
    }
    SYS1(close, parent);
    return r;
}

static int is_of(i64 fd, u64 magic) {
    u64 kind[16] = {0};
    return SYS2(fstatfs, fd, kind) >= 0 && kind[0] == magic;
}

static i64 open_target(int root, const char *path, u64 kind) {
    u64 no_follow = kind & NAME_NO_FOLLOW ? O_NOFOLLOW : 0;
    i64 fd = open_at(root, *path ? path : ".", O_PATH | no_follow, 0, IN_ROOT | NO_MAGICLINKS);
    target_made = 0;
    if (fd == -ENOENT) fd = make_last(root, path, kind);
    if (fd == -ENOENT) fd = walk_and_make(root, path, kind);
    if (fd >= 0 && kind & NAME_NOT_PROC && is_of(fd, PROC_SUPER_MAGIC)) { /* a link in the image led into /proc */
        SYS1(close, fd);
        return -EXDEV;
    }
    return fd;
}

/* What OpenTerminal has opened must be the multiplexer of a devpts (CVE-2025-52565). */
static i64 check_multiplexer(i64 fd) {
    struct status s;
    i64 r = status_of((int)fd, "", AT_EMPTY_PATH, &s);
    if (r < 0) return r;
    return s.rdev == 0x502 /* 5:2 */ && is_of(fd, DEVPTS_SUPER_MAGIC) ? 0 : -EXDEV;
}

/* What was opened must be this kind of file (0 for any), and this device (0 for any). */
static i64 check_file(int fd, u32 type, u64 device) {
    struct status s;
    i64 r = status_of(fd, "", AT_EMPTY_PATH, &s);
    if (r < 0) return r;
    if (type && (s.mode & 0170000) != type) return -EXDEV;
    return device && s.rdev != device ? -EXDEV : 0;
}

static i64 mount_of(const char *path, u64 *id) {
    struct { u32 mask, rest[35]; u64 mount; u64 more[13]; } s = {0}; /* struct statx: stx_mnt_id is at 144 */
    i64 r = SYS5(statx, -100, path, 0, 0x1000 /* STATX_MNT_ID */, &s);
    *id = s.mount;
    return r < 0 ? r : s.mask & 0x1000 ? 0 : -EOPNOTSUPP;
}

/* Nothing may lie over the root: a lookup of "/" stops at our own, ".." from there crosses to what covers it, and
 * that is where setns(2) would lead. */
static i64 check_root(void) {
    u64 root, top;
    i64 r = mount_of("/", &root);
    if (r == -EOPNOTSUPP) return 0; /* before Linux 5.8 */
    if (r >= 0) r = mount_of("/..", &top);
    return r < 0 ? r : root == top ? 0 : -EXDEV;
}

/* Hides a path: an empty directory over a directory, `null` over anything else; the file itself says which. */
static i64 mask(int root, const char *path, int null) {
    static int nothing = -1; /* the first empty directory that was mounted; the others are copies of it */
    struct status s;
    i64 fd = open_at(root, path, O_PATH, 0, IN_ROOT | NO_MAGICLINKS), cover = -1, r;
    if (fd < 0) return fd;
    r = status_of((int)fd, "", AT_EMPTY_PATH, &s);
    if (r < 0) goto out;
    if ((s.mode & 0170000) != 0040000) {
        cover = SYS3(open_tree, null, "", 1 /* OPEN_TREE_CLONE */ | AT_EMPTY_PATH | O_CLOEXEC);
    } else if (nothing >= 0) {
        cover = SYS3(open_tree, nothing, "", 1 /* OPEN_TREE_CLONE */ | AT_EMPTY_PATH | O_CLOEXEC);
    } else {
        i64 fs = SYS2(fsopen, "tmpfs", 1 /* FSOPEN_CLOEXEC */);
        r = fs;
        if (fs < 0) goto out;
        r = SYS5(fsconfig, fs, 1 /* SET_STRING */, "source", "tmpfs", 0);
        if (r >= 0) r = SYS5(fsconfig, fs, 1 /* SET_STRING */, "nr_inodes", "1", 0);
        if (r >= 0) r = SYS5(fsconfig, fs, 6 /* CMD_CREATE */, 0, 0, 0);
        if (r >= 0) r = SYS3(fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, 1 /* MOUNT_ATTR_RDONLY */);
        SYS1(close, fs);
        if (r < 0) goto out;
        cover = nothing = (int)r;
    }
    r = cover;
    if (cover >= 0) r = SYS5(move_mount, cover, "", fd, "", 0x04 | 0x40 /* F_EMPTY_PATH, T_EMPTY_PATH */);
    if (cover >= 0 && cover != nothing) SYS1(close, cover);
out:
    SYS1(close, fd);
    return r;
}

/* Writes to a file below /proc that is the kernel's own and nothing else: the root of a proc file system, no mount
 * and no magic link on the way (CVE-2019-16884, CVE-2025-52881). */
static i64 write_proc(int root, const char *path, const char *data, u64 size) {
    struct status s;
    i64 proc = open_at(root, "/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, root == -100 ? 0 : IN_ROOT), r;
    if (proc < 0) return proc;
    r = status_of((int)proc, "", AT_EMPTY_PATH, &s);
    if (r >= 0 && (!is_of(proc, PROC_SUPER_MAGIC) || s.inode != PROC_ROOT_INODE)) r = -EXDEV;
    if (r >= 0) r = open_at((int)proc, path, O_WRONLY, 0, BENEATH | NO_XDEV | NO_MAGICLINKS);
    SYS1(close, proc);
    if (r < 0) return r;
    i64 fd = r;
    r = write_all((int)fd, data, size);
    SYS1(close, fd);
    return r;
}

static i64 copy_data(i64 from, i64 to) {
    static char buffer[65536];
    for (;;) {
        i64 n = SYS3(read, from, buffer, sizeof buffer);
        if (n == -EINTR) continue;
        if (n <= 0) return n;
        for (i64 at = 0; at < n;) {
            i64 w = SYS3(write, to, buffer + at, n - at);
            if (w == -EINTR) continue;
            if (w < 0) return w;
            at += w;
        }
    }
}

static i64 copy_tree(i64 from, i64 to, int depth);

static i64 copy_entry(i64 from, i64 to, const char *name, int depth) {
    static char link[PATH_SIZE];
    struct status s;
    i64 r = status_of((int)from, name, AT_SYMLINK_NOFOLLOW, &s), a, b;
    if (r < 0) return r;
    u32 type = s.mode & 0170000;
    if (type == 0120000) {
        r = SYS4(readlinkat, from, name, link, sizeof link - 1);
        if (r < 0) return r;
        link[r] = 0;
        r = SYS3(symlinkat, link, to, name);
        return r < 0 ? r : SYS5(fchownat, to, name, s.uid, s.gid, AT_SYMLINK_NOFOLLOW);
    }
    if (type == 0040000)
        r = SYS3(mkdirat, to, name, 0700);
    else
        r = SYS4(mknodat, to, name, (s.mode & 0170000) | 0600, s.rdev);
    if (r < 0) return r;
    if (type == 0040000 || type == 0100000) {
        u64 flags = O_NOFOLLOW | (type == 0040000 ? O_DIRECTORY : 0);
        a = open_at((int)from, name, flags, 0, BENEATH);
        if (a < 0) return a;
        b = open_at((int)to, name, flags | (type == 0100000 ? O_WRONLY : 0), 0, BENEATH);
        if (b < 0) r = b;
        else r = type == 0040000 ? copy_tree(a, b, depth + 1) : copy_data(a, b);
        SYS1(close, a);
        if (b >= 0) SYS1(close, b);
        if (r < 0) return r;
    }
    r = SYS5(fchownat, to, name, s.uid, s.gid, AT_SYMLINK_NOFOLLOW);
    return r < 0 ? r : SYS3(fchmodat, to, name, s.mode & 07777);
}

/* Copies what is in one directory into another: names, content, owners, modes. */
static i64 copy_tree(i64 from, i64 to, int depth) {
    struct entry { u64 inode; i64 offset; u16 length; u8 type; char name[]; };
    if (depth > 64) return -ELOOP;
    i64 buffer = SYS6(mmap, 0, 32768, 3, 0x22, -1, 0), r;
    if (buffer < 0 && buffer > -4096) return buffer;
    while ((r = SYS3(getdents64, from, buffer, 32768)) > 0) {
        for (i64 at = 0; at < r;) {
            struct entry *e = (struct entry *)(buffer + at);
            at += e->length;
            if (e->name[0] == '.' && (!e->name[1] || (e->name[1] == '.' && !e->name[2]))) continue;
            i64 failed = copy_entry(from, to, e->name, depth);
            if (failed < 0) {
                SYS2(munmap, buffer, 32768);
                return failed;
            }
        }
    }
    SYS2(munmap, buffer, 32768);
    return r;
}

static i64 copy_up(int from, int to) {
    i64 a = open_at(from, ".", O_DIRECTORY, 0, 0), b = open_at(to, ".", O_DIRECTORY, 0, 0), r;
    r = a < 0 ? a : b < 0 ? b : copy_tree(a, b, 0);
    if (a >= 0) SYS1(close, a);
    if (b >= 0) SYS1(close, b);
    return r;
}
