/* Carries out a plan: read an operation, make its system call, report the step that failed.
 *
 * No libc, no configuration, no choices, no text parsing: what to do was decided before, in Python.
 * The plan comes over a SEQPACKET socket on descriptor 3; the same socket takes the reports, the word to go on
 * at meeting points, and handles in both directions. It is close-on-exec, so its end of file means that the
 * exec happened. See docs/layers/plan.md; ops.h is generated from the vocabulary's declaration. */
#include "syscalls.h"
#include "ops.h"

#define CONTROL 3
#define HIGH 100 /* our own descriptors live from here on, out of the way of preserved ones */

#define EBADF 9
#define ECHILD 10
#define EACCES 13
#define EISDIR 21
#define ENOENT 2
#define ENOTDIR 20
#define EINTR 4
#define EINVAL 22
#define EPIPE 32
#define ENAMETOOLONG 36
#define ELOOP 40
#define EPROTO 71
#define ETIME 62

#define O_WRONLY 1
#define O_RDWR 2
#define O_NOCTTY 0400
#define O_CLOEXEC 02000000

struct header { /* codec.py: HEADER */
    u64 fingerprint;
    u32 size; /* of the whole plan, in bytes */
    u16 steps;
    u16 flags;
};
#define FLAG_TRACE 1
#define FLAG_LAST 2 /* no further segment follows */
#define MOST_STEPS 8192
#define PATIENCE 600000 /* ns */
#define BUSY 30000      /* ns that a look and a yield take only when others run in between */

struct op { /* codec.py: RECORD; text fields are offset | length << 32 into the plan */
    u16 number;
    u16 tolerate[2];
    u16 unused;
    i64 field[OPS_MAX_FIELDS];
};

struct report { /* codec.py: REPORT */
    u32 kind;
    u32 step;
    i64 value;
};
enum { FAILED = 1, CLONED, AWAITING, HANDLE, TIMES, REFUSED, HOOK_ENDED };

struct iovec { void *base; u64 size; };
struct msghdr {
    void *name; u32 namelen; struct iovec *iov; u64 iovlen; void *control; u64 controllen; i32 flags;
};
struct cmsghdr { u64 len; i32 level, type; };
struct timespec { i64 sec, nsec; };
struct pollfd { i32 fd; short events, revents; };

static u8 *plan, *rest; /* the segment in hand; the end of what was received */
static struct op *ops;
static u32 first, steps, step; /* of this segment: its first step's number, how many; the step in hand */
static int last;               /* this is the last segment */
static int control;
static int slots[OPS_MAX_SLOTS];
static u64 *times; /* one per step when tracing, else 0 */
static int kept;   /* the creator said "keep": from now on it may go away */
static char inbox[65536 + 1];
static u32 inbox_size;
static char *program; /* chosen by FindProgram */

#define TEXT(i) ((char *)plan + (u32)op->field[i])
#define LENGTH(i) ((u64)op->field[i] >> 32)

static u64 now(void) {
    struct timespec t;
    SYS2(clock_gettime, 1 /* CLOCK_MONOTONIC */, &t);
    return (u64)t.sec * 1000000000 + (u64)t.nsec;
}

__attribute__((used, noreturn)) static void go_on(void);

static i64 send_with(int fd, struct iovec *parts, u64 count, int handle) {
    struct { struct cmsghdr head; i32 fd, pad; } rights = {{sizeof(struct cmsghdr) + 4, 1, 1}, handle, 0};
    struct msghdr m = {0, 0, parts, count, 0, 0, 0};
    i64 r;
    if (handle >= 0) {
        m.control = &rights;
        m.controllen = sizeof rights;
    }
    do r = SYS3(sendmsg, fd, &m, 0x4000 /* MSG_NOSIGNAL */);
    while (r == -EINTR);
    return r;
}

static i64 report_to(int socket, u32 kind, u32 at, i64 value, int handle) {
    struct report r = {kind, at, value};
    struct iovec part = {&r, sizeof r};
    return send_with(socket, &part, 1, handle);
}

static i64 report(u32 kind, u32 at, i64 value, int handle) { return report_to(control, kind, at, value, handle); }

static void report_times(void) {
    struct report r = {TIMES, step, (i64)now()};
    struct iovec parts[2] = {{&r, sizeof r}, {times, (step + 1) * sizeof(u64)}};
    if (times) send_with(control, parts, 2, -1);
}

static void leave(int code) {
    for (;;) SYS1(exit_group, code);
}

static void fail(i64 error) {
    if (times) report_times();
    report(FAILED, step, error, -1);
    leave(1);
}

/* A slot's descriptor: CWD (-100) stands for itself, STDIO (-10, -11, -12) for 0, 1 and 2; an empty slot gives a
 * descriptor that nobody has. */
static int handle(i64 slot) {
    if (slot == -100) return -100;
    if (slot <= -10 && slot >= -12) return (int)(-10 - slot);
    return slot >= 0 && slot < OPS_MAX_SLOTS ? slots[slot] : -1;
}

static i64 keep(i64 slot, i64 fd) {
    if (fd < 0) return fd;
    if (slot < 0 || slot >= OPS_MAX_SLOTS) return -EINVAL;
    slots[slot] = (int)fd;
    return 0;
}

static void empty(i64 slot) {
    if (slot < 0 || slot >= OPS_MAX_SLOTS || slots[slot] < 0) return;
    SYS1(close, slots[slot]);
    slots[slot] = -1;
}

/* Closes what lies between the descriptors that are kept. */
static i64 close_others(i64 last) {
    for (u32 n = 0; n < OPS_MAX_SLOTS; n++)
        if (n > last) slots[n] = -1;
    for (i64 from = 3;;) {
        i64 next = control >= from ? control : -1;
        for (i64 n = 0; n <= last && n < OPS_MAX_SLOTS; n++)
            if (slots[n] >= from && (next < 0 || slots[n] < next)) next = slots[n];
        if (next < 0) return SYS3(close_range, from, ~0U, 0);
        if (next > from) SYS3(close_range, from, next - 1, 0);
        from = next + 1;
    }
}

static i64 open_at(int dir, const char *path, u64 flags, u64 mode, u64 resolve) {
    struct { u64 flags, mode, resolve; } how = {flags | O_CLOEXEC, mode, resolve};
    i64 r;
    do r = SYS4(openat2, dir, path, &how, sizeof how);
    while (r == -EINTR || r == -11 /* EAGAIN: a rename raced with RESOLVE_IN_ROOT */);
    return r;
}

static i64 write_all(int fd, const char *data, u64 size) {
    i64 r;
    do r = SYS3(write, fd, data, size);
    while (r == -EINTR);
    return r < 0 ? r : 0;
}

/* Points a NULL-terminated array at the strings of a list; the array lives in freshly mapped memory. */
static char **strings(struct op *op, int i) {
    char *text = TEXT(i), *end = text + LENGTH(i);
    u64 count = 1;
    for (char *p = text; p < end; p++) count += !*p;
    i64 memory = SYS6(mmap, 0, count * sizeof(char *), 3, 0x22, -1, 0);
    if (memory < 0 && memory > -4096) fail(-memory);
    char **list = (char **)memory;
    u64 n = 0;
    while (text < end) {
        list[n++] = text;
        while (*text) text++;
        text++;
    }
    list[n] = 0;
    return list;
}

static void reset_signals(void) {
    struct { void *handler; u64 flags; void *restorer; u64 mask; } action = {0, 0, 0, 0};
    u64 none = 0;
    for (int number = 1; number <= 64; number++) SYS4(rt_sigaction, number, &action, 0, 8);
    SYS4(rt_sigprocmask, 2 /* SIG_SETMASK */, &none, 0, 8);
}

/* The new process goes on with the plan by itself: on a stack of its own where it shares our memory, which is ours no
 * more once it is there. */
static u8 stack[65536] __attribute__((aligned(16)));

static i64 clone(struct op *op) {
    struct {
        u64 flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
    } args = {0};
    u32 here = step;
    int socket = control;
    args.flags = (u64)op->field[CLONE_FLAGS] | 0x8000 /* CLONE_PARENT */;
    if (args.flags & 0x100 /* CLONE_VM */) {
        args.stack = (u64)stack;
        args.stack_size = sizeof stack;
    }
    if (op->field[CLONE_CGROUP] >= 0) {
        args.flags |= 0x200000000UL /* CLONE_INTO_CGROUP */;
        args.cgroup = (u64)handle(op->field[CLONE_CGROUP]);
    }
    i64 pid = CLONE3(&args, sizeof args, go_on);
    if (pid < 0) return pid;
    report_to(socket, CLONED, here, pid, -1);
    leave(0);
    return 0;
}

static i64 loopback_up(void) {
    struct { char name[16]; short flags; char rest[22]; } request = {"lo", 0x1 | 0x40 /* UP, RUNNING */, {0}};
    i64 fd = SYS3(socket, 2, 2 | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    i64 r = SYS3(ioctl, fd, 0x8914 /* SIOCSIFFLAGS */, &request);
    SYS1(close, fd);
    return r;
}

/* Descriptors that must stay out of the way of preserved ones move up; where a limit forbids that, they stay. */
static i64 move_up(i64 fd) {
    i64 high = SYS3(fcntl, fd, 1030 /* F_DUPFD_CLOEXEC */, HIGH);
    if (high < 0) return fd;
    SYS1(close, fd);
    return high;
}

/* What we wait for is on its way, mostly: look for it a while before going to sleep. Woken, we would be put on the
 * creator's CPU when ours has become too idle to count as idle (virtual machines), and start only when it stops.
 * Yielding, so that nobody who has something to do waits for us; and no longer when somebody had. */
static void wait_awake(void) {
    struct pollfd ready = {control, 1, 0};
    struct timespec none = {0, 0};
    u64 before = now(), until = before + PATIENCE;
    while (!SYS5(ppoll, &ready, 1, &none, 0, 8) && before < until) {
        SYS0(sched_yield);
        u64 after = now();
        if (after - before > BUSY) return;
        before = after;
    }
}

/* One packet from the control socket; handles that came with it go into slots. */
static i64 receive(void *data, u64 size, i64 into) {
    struct { struct cmsghdr head; i32 fds[254]; } rights;
    struct iovec part = {data, size};
    struct msghdr m = {0, 0, &part, 1, &rights, sizeof rights, 0};
    i64 r;
    wait_awake();
    do r = SYS3(recvmsg, control, &m, 0x40000000 /* MSG_CMSG_CLOEXEC */);
    while (r == -EINTR);
    if (r > 0 && m.controllen > sizeof(struct cmsghdr) && rights.head.type == 1) {
        u64 count = (rights.head.len - sizeof(struct cmsghdr)) / 4;
        for (u64 n = 0; n < count; n++) {
            i64 high = move_up(rights.fds[n]);
            if (into >= 0) keep(into + (i64)n, high);
        }
    }
    return r;
}

static void ended(int signal) { leave(128 + signal); }

/* The first process of a pid namespace gets no signal that it has not asked for (pid_namespaces(7)): without handlers
 * a created container would not end by `kill ID TERM`. The exec takes them away. */
static void can_be_ended(void) {
    static const u8 signals[] = {1, 2, 3, 10, 12, 14, 15}; /* HUP INT QUIT USR1 USR2 ALRM TERM */
    struct { void (*handler)(int); u64 flags; void (*restorer)(int); u64 mask; } action = {ended, 0x04000000, ended, 0};
    for (u64 n = 0; n < sizeof signals; n++) SYS4(rt_sigaction, signals[n], &action, 0, 8);
}

static i64 await(struct op *op) {
    int listener = op->field[AWAIT_LISTENER] >= 0 ? handle(op->field[AWAIT_LISTENER]) : -1;
    if (listener >= 0) can_be_ended();
    report_times();
    i64 r = report(AWAITING, step, 0, -1);
    if (r < 0 && !kept) leave(1);
    for (;;) {
        if (listener >= 0) {
            struct pollfd both[2] = {{control, 1, 0}, {listener, 1, 0}};
            if (control >= 0) wait_awake();
            r = SYS5(ppoll, both, 2, 0, 0, 8);
            if (r < 0) continue;
            if (!both[0].revents && both[1].revents) {
                i64 other = SYS4(accept4, listener, 0, 0, O_CLOEXEC);
                if (other < 0) continue;
                if (control >= 0) SYS1(close, control);
                control = (int)move_up(other);
                continue;
            }
        }
        r = receive(inbox, sizeof inbox - 1, op->field[AWAIT_INTO]);
        inbox_size = r > 0 ? (u32)r : 0;
        if (r <= 0) { /* the other side went away */
            if (!kept || listener < 0) leave(1);
            SYS1(close, control);
            control = -1; /* poll ignores it */
            continue;
        }
        if (inbox[0] == 'k') kept = 1;
        if (inbox[0] == 'g') return 0;
        if (inbox[0] == 'x') leave(1);
    }
}

#include "hooks.h"
#include "places.h"
#include "mounts.h"
#include "namespaces.h"
#include "notify.h"
#include "terminals.h"

static i64 capset(u64 effective, u64 permitted, u64 inheritable) {
    struct { u32 version, pid; } head = {0x20080522, 0};
    u32 data[6] = {(u32)effective, (u32)permitted, (u32)inheritable,
                   (u32)(effective >> 32), (u32)(permitted >> 32), (u32)(inheritable >> 32)};
    return SYS2(capset, &head, data);
}

static i64 find_program(struct op *op) {
    i64 answer = -ENOENT;
    for (char **candidate = strings(op, FIND_PROGRAM_CANDIDATES); *candidate; candidate++) {
        u32 status[64]; /* struct stat: st_mode is at 24 on x86_64, at 16 on aarch64 */
        i64 r = SYS4(newfstatat, -100, *candidate, status, 0);
        if (r < 0) {
            if (r != -ENOENT && r != -ENOTDIR) answer = r;
            continue;
        }
#if defined(__x86_64__)
        u32 mode = status[6];
#else
        u32 mode = status[4];
#endif
        if ((mode & 0170000) == 0040000) {
            if (answer == -ENOENT) answer = -EISDIR;
            continue;
        }
        r = SYS4(faccessat2, -100, *candidate, 1 /* X_OK */, 0x200 /* AT_EACCESS */);
        if (r == 0 && (mode & 0170000) == 0100000) {
            program = *candidate;
            return 0;
        }
        answer = -EACCES;
    }
    return answer;
}

static i64 seccomp(struct op *op) {
    struct { u16 length; u64 filter; } load = {(u16)(LENGTH(SECCOMP_FILTER) / 8), (u64)TEXT(SECCOMP_FILTER)};
    i64 r = SYS3(seccomp, 1 /* SET_MODE_FILTER */, op->field[SECCOMP_FLAGS], &load);
    return r > 0 ? keep(op->field[SECCOMP_INTO], r) : r;
}

static i64 check_cwd(void) {
    char path[4096];
    i64 r = SYS2(getcwd, path, sizeof path);
    if (r < 0) return r;
    return path[0] == '/' ? 0 : -ENOENT; /* the kernel says "(unreachable)/..." */
}

#define F(name) op->field[name]

static i64 carry_out(struct op *op) {
    i64 r;
    switch (op->number) {
    case OP_RESET_SIGNALS: reset_signals(); return 0;
    case OP_PRCTL: return SYS5(prctl, F(PRCTL_OPTION), F(PRCTL_A), F(PRCTL_B), F(PRCTL_C), 0);
    case OP_UMASK: SYS1(umask, F(UMASK_MASK)); return 0;
    case OP_SET_SESSION: return SYS0(setsid);
    case OP_JOIN_SESSION_KEYRING: return SYS2(keyctl, 1, TEXT(JOIN_SESSION_KEYRING_NAME));
    case OP_PERSONALITY: return SYS1(personality, F(PERSONALITY_PERSONA));
    case OP_RLIMIT: {
        u64 limit[2] = {(u64)F(RLIMIT_SOFT), (u64)F(RLIMIT_HARD)};
        return SYS4(prlimit64, 0, F(RLIMIT_RESOURCE), limit, 0);
    }
    case OP_SCHEDULER: return SYS3(sched_setattr, 0, TEXT(SCHEDULER_ATTRIBUTES), 0);
    case OP_IO_PRIORITY: return SYS3(ioprio_set, 1, 0, F(IO_PRIORITY_PRIORITY));
    case OP_AFFINITY: return SYS3(sched_setaffinity, 0, LENGTH(AFFINITY_MASK), TEXT(AFFINITY_MASK));
    case OP_MEMORY_POLICY:
        return SYS3(set_mempolicy, F(MEMORY_POLICY_MODE), LENGTH(MEMORY_POLICY_NODES) ? TEXT(MEMORY_POLICY_NODES) : 0,
                    F(MEMORY_POLICY_BITS));

    case OP_CLONE: return clone(op);
    case OP_UNSHARE: return SYS1(unshare, F(UNSHARE_FLAGS));
    case OP_SET_NS: return SYS2(setns, handle(F(SET_NS_SLOT)), F(SET_NS_FLAGS));
    case OP_USER_NAMESPACE:
        empty(F(USER_NAMESPACE_INTO));
        return keep(F(USER_NAMESPACE_INTO), user_namespace(op));
    case OP_NETLINK: return netlink(op);
    case OP_SET_HOSTNAME: return SYS2(sethostname, TEXT(SET_HOSTNAME_NAME), LENGTH(SET_HOSTNAME_NAME));
    case OP_SET_DOMAINNAME: return SYS2(setdomainname, TEXT(SET_DOMAINNAME_NAME), LENGTH(SET_DOMAINNAME_NAME));
    case OP_LOOPBACK_UP: return loopback_up();

    case OP_AWAIT: return await(op);
    case OP_SEND_HANDLE:
        r = report(HANDLE, step, 0, handle(F(SEND_HANDLE_SLOT)));
        empty(F(SEND_HANDLE_SLOT));
        return r;
    case OP_HOOK: return hook(op);
    case OP_KEEP_TEXT:
        kept_size = inbox_size ? inbox_size - 1 : 0; /* without the verb */
        memcpy(kept_text, inbox + 1, kept_size);
        return 0;

    case OP_OPEN:
        empty(F(OPEN_INTO));
        return keep(F(OPEN_INTO),
                    open_at(handle(F(OPEN_DIR)), TEXT(OPEN_PATH), (u64)F(OPEN_FLAGS), (u64)F(OPEN_MODE),
                            (u64)F(OPEN_RESOLVE)));
    case OP_CLOSE: empty(F(CLOSE_SLOT)); return 0;
    case OP_CLOSE_OTHERS: return close_others(F(CLOSE_OTHERS_LAST));
    case OP_WRITE: return write_all(handle(F(WRITE_SLOT)), TEXT(WRITE_DATA), LENGTH(WRITE_DATA));
    case OP_WRITE_FILE: {
        i64 fd = open_at(handle(F(WRITE_FILE_DIR)), TEXT(WRITE_FILE_PATH), O_WRONLY, 0, 0);
        if (fd < 0) return fd;
        r = write_all((int)fd, TEXT(WRITE_FILE_DATA), LENGTH(WRITE_FILE_DATA));
        SYS1(close, fd);
        return r;
    }
    case OP_WRITE_PROC: 
        return write_proc(handle(F(WRITE_PROC_ROOT)), TEXT(WRITE_PROC_PATH), TEXT(WRITE_PROC_DATA),
                          LENGTH(WRITE_PROC_DATA));
    case OP_OPEN_TARGET:
        empty(F(OPEN_TARGET_INTO));
        return keep(F(OPEN_TARGET_INTO),
                    open_target(handle(F(OPEN_TARGET_DIR)), TEXT(OPEN_TARGET_PATH), (u64)F(OPEN_TARGET_MAKE)));
    case OP_CHECK_FILE:
        return check_file(handle(F(CHECK_FILE_SLOT)), (u32)F(CHECK_FILE_TYPE), (u64)F(CHECK_FILE_DEVICE));
    case OP_MASK: return mask(handle(F(MASK_ROOT)), TEXT(MASK_PATH), handle(F(MASK_NULL)));
    case OP_COPY_UP: return copy_up(handle(F(COPY_UP_DIR)), handle(F(COPY_UP_SLOT)));
    case OP_MKDIR: return SYS3(mkdirat, handle(F(MKDIR_DIR)), TEXT(MKDIR_PATH), F(MKDIR_MODE));
    case OP_MKNOD:
        return SYS4(mknodat, handle(F(MKNOD_DIR)), TEXT(MKNOD_PATH), F(MKNOD_MODE), F(MKNOD_DEVICE));
    case OP_SYMLINK: return SYS3(symlinkat, TEXT(SYMLINK_TARGET), handle(F(SYMLINK_DIR)), TEXT(SYMLINK_PATH));
    case OP_UNLINK: return SYS3(unlinkat, handle(F(UNLINK_DIR)), TEXT(UNLINK_PATH), F(UNLINK_FLAGS));
    case OP_CHOWN:
        return SYS5(fchownat, handle(F(CHOWN_DIR)), TEXT(CHOWN_PATH), F(CHOWN_UID), F(CHOWN_GID), F(CHOWN_FLAGS));
    case OP_CHMOD: return SYS3(fchmodat, handle(F(CHMOD_DIR)), TEXT(CHMOD_PATH), F(CHMOD_MODE));
    case OP_DUPLICATE: {
        int from = handle(F(DUPLICATE_SLOT));
        if (from == F(DUPLICATE_NUMBER)) return SYS3(fcntl, from, 2 /* F_SETFD */, 0);
        return SYS3(dup3, from, F(DUPLICATE_NUMBER), 0);
    }
    case OP_MOVE_HANDLE:
        empty(F(MOVE_HANDLE_INTO));
        r = handle(F(MOVE_HANDLE_SLOT));
        if (r < 0) return -EBADF;
        slots[F(MOVE_HANDLE_SLOT)] = -1;
        return keep(F(MOVE_HANDLE_INTO), r);

    case OP_MAKE_MOUNT:
        empty(F(MAKE_MOUNT_INTO));
        return keep(F(MAKE_MOUNT_INTO), make_mount(op));
    case OP_OPEN_TREE:
        r = SYS3(open_tree, handle(F(OPEN_TREE_DIR)), TEXT(OPEN_TREE_PATH), F(OPEN_TREE_FLAGS) | O_CLOEXEC);
        empty(F(OPEN_TREE_INTO));
        return keep(F(OPEN_TREE_INTO), r);
    case OP_MOVE_MOUNT:
        return SYS5(move_mount, handle(F(MOVE_MOUNT_SLOT)), "", handle(F(MOVE_MOUNT_DIR)), TEXT(MOVE_MOUNT_PATH),
                    F(MOVE_MOUNT_FLAGS));
    case OP_SET_MOUNT_ATTRIBUTES: return set_mount_attributes(op);
    case OP_MOUNT:
        return SYS5(mount, TEXT(MOUNT_SOURCE), TEXT(MOUNT_TARGET), TEXT(MOUNT_TYPE), F(MOUNT_FLAGS),
                    TEXT(MOUNT_DATA));
    case OP_UNMOUNT: return SYS2(umount2, TEXT(UNMOUNT_PATH), F(UNMOUNT_FLAGS));
    case OP_FCH_DIR: return SYS1(fchdir, handle(F(FCH_DIR_SLOT)));
    case OP_CH_DIR: return SYS1(chdir, TEXT(CH_DIR_PATH));
    case OP_CHECK_CWD: return check_cwd();
    case OP_CHECK_ROOT: return check_root();
    case OP_PIVOT_ROOT: return SYS2(pivot_root, TEXT(PIVOT_ROOT_NEW), TEXT(PIVOT_ROOT_OLD));
    case OP_CH_ROOT: return SYS1(chroot, TEXT(CH_ROOT_PATH));

    case OP_OPEN_TERMINAL: return open_terminal(op);
    case OP_CONTROLLING_TERMINAL: return controlling_terminal(op);

    case OP_BOUNDING_SET:
        for (i64 cap = 0; cap <= F(BOUNDING_SET_LAST); cap++) {
            if ((F(BOUNDING_SET_KEEP) >> cap) & 1) continue;
            r = SYS5(prctl, 24 /* PR_CAPBSET_DROP */, cap, 0, 0, 0);
            if (r < 0 && r != -EINVAL) return r;
        }
        return 0;
    case OP_CAP_SET:
        return capset((u64)F(CAP_SET_EFFECTIVE), (u64)F(CAP_SET_PERMITTED), (u64)F(CAP_SET_INHERITABLE));
    case OP_AMBIENT_SET:
        SYS5(prctl, 47 /* PR_CAP_AMBIENT */, 4 /* CLEAR_ALL */, 0, 0, 0);
        for (i64 cap = 0; cap <= F(AMBIENT_SET_LAST); cap++) {
            if (!((F(AMBIENT_SET_RAISED) >> cap) & 1)) continue;
            r = SYS5(prctl, 47, 2 /* RAISE */, cap, 0, 0);
            if (r < 0) return r;
        }
        return 0;
    case OP_SET_GROUPS: return SYS2(setgroups, LENGTH(SET_GROUPS_GROUPS) / 4, TEXT(SET_GROUPS_GROUPS));
    case OP_SET_IDS:
        r = SYS3(setresgid, F(SET_IDS_GID), F(SET_IDS_GID), F(SET_IDS_GID));
        return r < 0 ? r : SYS3(setresuid, F(SET_IDS_UID), F(SET_IDS_UID), F(SET_IDS_UID));
    case OP_SECCOMP: return seccomp(op);
    case OP_SECCOMP_NOTIFY: return seccomp_notify(op);

    case OP_FIND_PROGRAM: return find_program(op);
    case OP_EXEC: {
        char **argv = strings(op, EXEC_ARGV), **env = strings(op, EXEC_ENV);
        report_times();
        return program ? SYS3(execve, program, argv, env) : -ENOENT;
    }
    }
    return -EINVAL;
}

static void refuse(i64 value) {
    report(REFUSED, 0, value, -1);
    leave(2);
}

/* Receives a segment, and what else its creator had ready: into new memory, which it sets `plan` and `rest` to. */
static void receive_segments(void) {
    struct header head;
    i64 r;
    wait_awake();
    do r = SYS6(recvfrom, control, &head, sizeof head, 0x22 /* MSG_PEEK, MSG_TRUNC: the packet's size */, 0, 0);
    while (r == -EINTR);
    if (r < (i64)sizeof head) leave(2);
    if (head.fingerprint != OPS_FINGERPRINT) refuse(EPROTO);
    u64 size = head.size > (u64)r ? head.size : (u64)r;
    i64 memory = SYS6(mmap, 0, size, 3, 0x22, -1, 0);
    if (memory < 0 && memory > -4096) refuse(-memory);
    plan = (u8 *)memory;
    for (rest = plan; rest < plan + head.size; rest += r) {
        r = receive(rest, size - (u64)(rest - plan), 0); /* the creator's handles: slots 0 and on */
        if (r <= 0) leave(2);
    }
}

/* A plan comes in segments, so that we can be at work while the rest is still being made. A segment starts with the
 * header that says how many bytes there are; it comes in several packets, or several come in one. */
static void read_segment(void) {
    plan += plan ? ((struct header *)plan)->size : 0;
    if (plan == rest) receive_segments();
    struct header head = *(struct header *)plan;
    if (head.fingerprint != OPS_FINGERPRINT) refuse(EPROTO);
    if (head.size < sizeof head || head.size > (u64)(rest - plan)) refuse(EINVAL);
    ops = (struct op *)(plan + sizeof head);
    first += steps;
    steps = head.steps;
    last = head.flags & FLAG_LAST;
    if (head.flags & FLAG_TRACE && !times) {
        i64 memory = SYS6(mmap, 0, MOST_STEPS * sizeof(u64), 3, 0x22, -1, 0);
        if (memory < 0 && memory > -4096) refuse(-memory);
        times = (u64 *)memory;
    }
}

__attribute__((noreturn)) static void work(void) {
    for (; step < MOST_STEPS; step++) {
        if (step == first + steps) {
            if (last) break;
            read_segment();
        }
        struct op *op = ops + (step - first);
        if (times) times[step] = now();
        i64 r = carry_out(op);
        if (r < 0 && -r != op->tolerate[0] && -r != op->tolerate[1]) fail(-r);
    }
    step--;
    fail(EINVAL); /* a plan ends with Exec */
    for (;;) leave(2);
}

static void go_on(void) {
    step++;
    work();
}

__attribute__((used, noreturn)) static void start(void *arguments) {
    (void)arguments;
    control = (int)move_up(CONTROL);
    /* What the creator's caller forgot to close is none of the container's business, not while it is created either. */
    SYS3(close_range, control, control, 4 /* CLOSE_RANGE_CLOEXEC */);
    if (control > CONTROL) SYS3(close_range, CONTROL, control - 1, 0);
    SYS3(close_range, control + 1, ~0U, 0);
    for (u32 n = 0; n < OPS_MAX_SLOTS; n++) slots[n] = -1;
    work();
}

ENTRY(start);
