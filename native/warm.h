/* The launcher's warm door: have a plan server of the same user do what the command line says, so that no interpreter
 * starts. docs/layers/runtime.md has the conversation; runtime/worker.py is the other side.
 *
 * Who asks stays who acts: an executor that the command needs is our child, with our streams, session, limits and
 * privileges. The server has none of them and only sends the plan.
 * A server that is not there, not ours, does not answer, or wants us to, leaves us with the cold start. */
#ifndef BOXSHIP_WARM_H
#define BOXSHIP_WARM_H

#define WARM_PROTOCOL 1
#define HELLO_PATIENCE 60     /* ms for a server to greet and to take the request */
#define LOOK_PATIENCE 200     /* ms between two looks at whether the worker was stopped */
#define FAREWELL_PATIENCE 10000 /* ms for the removal of a container that ran in the foreground */
#define REQUEST_SIZE (96 * 1024)

enum { HELLO = 1, TAKEN, SPAWN, WAIT, EXIT, COLD };
#define SPAWN_FOREGROUND 1
#define SPAWN_STREAMS 2

struct message { /* worker.py: MESSAGE */
    u32 kind;
    u32 flags;
    i64 value;
};
struct request { u32 protocol, arguments, variables, mask; };

struct iovec { void *base; u64 size; };
struct msghdr {
    void *name; u32 namelen; struct iovec *iov; u64 iovlen; void *control; u64 controllen; i32 flags;
};
struct cmsghdr { u64 len; i32 level, type; };
struct pollfd { i32 fd; short events, revents; };
struct timespec { i64 sec, nsec; };

static char reclaim[96] = "BOXSHIP_RECLAIM="; /* set when a worker died in the middle: pid:start time:spawned */
static char follow_up[4096]; /* what removes a container that ran in the foreground, NUL-separated */
static u32 follow_up_size;
static u8 packet[16 + sizeof follow_up];

static const char *variable(char **env, const char *name) {
    for (; *env; env++)
        if (starts_with(*env, name)) return *env + length(name);
    return 0;
}

static int wait_for(int fd, i64 milliseconds) {
    struct pollfd ready = {fd, 1, 0};
    struct timespec patience = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    i64 r;
    do r = SYS5(ppoll, &ready, 1, &patience, 0, 8);
    while (r == -4 /* EINTR */);
    return r > 0;
}

/* One message; handles that came with it go to `fds`, -1 where there is none. 0 at the end of file. */
static i64 hear(int server, struct message *m, int *fds) {
    struct { struct cmsghdr head; i32 fds[8]; } rights;
    struct iovec part = {packet, sizeof packet};
    struct msghdr head = {0, 0, &part, 1, &rights, sizeof rights, 0};
    i64 r;
    do r = SYS3(recvmsg, server, &head, 0x40000000 /* MSG_CMSG_CLOEXEC */);
    while (r == -4);
    for (int n = 0; n < 8; n++) fds[n] = -1;
    if (r < (i64)sizeof *m) return 0;
    if (head.controllen > sizeof(struct cmsghdr) && rights.head.type == 1)
        for (u64 n = 0; n < (rights.head.len - sizeof(struct cmsghdr)) / 4 && n < 8; n++) fds[n] = rights.fds[n];
    memcpy(m, packet, sizeof *m);
    return r;
}

static i64 ask(int server, struct iovec *parts, u64 count, const int *fds, u32 many) {
    struct { struct cmsghdr head; i32 fds[4]; } rights = {{sizeof(struct cmsghdr) + 4 * many, 1, 1}, {0}};
    struct msghdr m = {0, 0, parts, count, many ? &rights : 0, many ? sizeof rights.head + (4 * many + 7) / 8 * 8 : 0, 0};
    for (u32 n = 0; n < many; n++) rights.fds[n] = fds[n];
    i64 r;
    do r = SYS3(sendmsg, server, &m, 0x4000 /* MSG_NOSIGNAL */);
    while (r == -4);
    return r;
}

/* Connected to the plan server of our own user; -1 without one. */
static int find_server(char **env) {
    struct { u16 family; char path[108]; } address = {1 /* AF_UNIX */, {0}};
    struct { i32 pid; u32 uid, gid; } peer = {0, 0, 0};
    u32 size = sizeof peer;
    u32 user = (u32)SYS0(geteuid);
    const char *path = variable(env, "BOXSHIP_PLAN_SERVER="), *runtime = variable(env, "XDG_RUNTIME_DIR=");
    static char name[PATH_SIZE];
    if (path) append(name, path);
    else if (!user) append(name, "/run/boxship/plans.sock");
    else if (runtime) {
        append(name, runtime);
        append(name, "/boxship/plans.sock");
    }
    if (name[0] != '/' || length(name) >= sizeof address.path) return -1;
    memcpy(address.path, name, length(name) + 1);
    i64 fd = SYS3(socket, 1, 5 | O_CLOEXEC | 04000 /* SEQPACKET, NONBLOCK: a full queue is no server */, 0);
    if (fd < 0) return -1;
    if (SYS3(connect, fd, &address, sizeof address) < 0 ||
        SYS5(getsockopt, fd, 1 /* SOL_SOCKET */, 17 /* SO_PEERCRED */, &peer, &size) < 0 || peer.uid != user) {
        SYS1(close, fd);
        return -1;
    }
    return (int)fd;
}

/* Hand over argv, environment, umask, working directory and streams. 0 when something does not fit. */
static int tell(int server, int argc, char **argv, char **env) {
    static char text[REQUEST_SIZE];
    struct request head = {WARM_PROTOCOL, 0, 0, 0};
    u64 at = 0;
    for (int n = 1; n < argc; n++, head.arguments++) {
        u64 size = length(argv[n]) + 1;
        if (at + size > sizeof text) return 0;
        memcpy(text + at, argv[n], size);
        at += size;
    }
    for (char **one = env; *one; one++, head.variables++) {
        u64 size = length(*one) + 1;
        if (at + size > sizeof text) return 0;
        memcpy(text + at, *one, size);
        at += size;
    }
    head.mask = (u32)SYS1(umask, 077);
    SYS1(umask, head.mask);
    i64 cwd = SYS4(openat2, -100, ".", (&(struct { u64 flags, mode, resolve; }){010000000 | O_CLOEXEC, 0, 0}), 24);
    if (cwd < 0) return 0;
    int fds[4] = {(int)cwd, 0, 1, 2}; /* a stream that is closed makes the kernel refuse: the cold start knows what to do */
    struct iovec parts[2] = {{&head, sizeof head}, {text, at}};
    i64 r = ask(server, parts, 2, fds, 4);
    SYS1(close, cwd);
    return r > 0;
}

/* fds: control socket, executor, and with SPAWN_STREAMS standard input, output and error. */
static void spawn(u32 flags, int *fds) {
    static char *const args[] = {"boxship-executor", 0}, *const none[] = {0};
    struct { void *handler; u64 flags; void *restorer; u64 mask; } plain = {0, 0, 0, 0};
    if (flags & SPAWN_FOREGROUND) {
        /* From before there is a process, so that no signal for it is lost. */
        u64 all = ~0UL & ~(1UL << 3 | 1UL << 4 | 1UL << 6 | 1UL << 7 | 1UL << 10); /* not our own faults */
        SYS4(rt_sigaction, 17 /* SIGCHLD */, &plain, 0, 8);
        SYS4(rt_sigprocmask, 2 /* SIG_SETMASK */, &all, 0, 8);
    }
    struct { u64 words[11]; } how = {{0}};
    how.words[4] = 17;
    i64 pid = SYS2(clone3, &how, sizeof how);
    if (pid == 0) {
        if (flags & SPAWN_STREAMS)
            for (int n = 0; n < 3; n++) SYS3(dup3, fds[2 + n], n, 0);
        if (fds[0] == 3) SYS3(fcntl, 3, 2 /* F_SETFD */, 0);
        else SYS3(dup3, fds[0], 3, 0);
        SYS5(execveat, fds[1], "", args, none, 0x1000 /* AT_EMPTY_PATH */);
        for (;;) SYS1(exit_group, 127);
    }
    for (int n = 0; n < 8; n++)
        if (fds[n] >= 0) SYS1(close, fds[n]);
}

/* Pass signals on to `pid` until it has ended: its exit code, or 128 + signal. */
static int stay_with(i64 pid) {
    u64 all = ~0UL;
    for (;;) {
        i32 status = 0;
        i64 r;
        while ((r = SYS4(wait4, -1, &status, 1 /* WNOHANG */, 0)) > 0) /* the executor's first stage is ours too */
            if (r == pid) return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
        if (r == -10 /* ECHILD */) return 255; /* taken from us: somebody traces us */
        i64 number = SYS4(rt_sigtimedwait, &all, 0, 0, 8);
        /* Not the child's own end, what the kernel sends for reasons of its own, nor window and urgent data. */
        if (number > 0 && number != 17 && number != 23 && number != 13 && number != 28) SYS2(kill, pid, number);
    }
}

/* Whether a process was stopped (by a signal or a debugger) or is gone: its state in proc_pid_stat(5). */
static int is_stopped(i64 pid) {
    char path[32] = "/proc/", digits[20], text[512];
    u64 n = 0, at = 6;
    for (i64 rest = pid; rest; rest /= 10) digits[n++] = (char)('0' + rest % 10);
    while (n) path[at++] = digits[--n];
    memcpy(path + at, "/stat", 6);
    i64 fd = SYS4(openat2, -100, path, (&(struct { u64 flags, mode, resolve; }){O_CLOEXEC, 0, 0}), 24);
    if (fd < 0) return 1;
    i64 size = SYS3(read, fd, text, sizeof text);
    SYS1(close, fd);
    while (size > 0 && text[size - 1] != ')') size--;
    return size > 0 && (text[size + 1] == 'T' || text[size + 1] == 't' || text[size + 1] == 'Z');
}

static void note_reclaim(const char *worker, int spawned) {
    append_to(reclaim, sizeof reclaim, worker);
    append_to(reclaim, sizeof reclaim, spawned ? ":1" : ":0");
}

/* The cold start of what the server left undone after a container that ran in the foreground. */
static void remove_cold(char **env);

/* Returns when the command is to be started cold; else this process ends here. */
static void try_warm(int argc, char **argv, char **env) {
    struct message m;
    int fds[8], server = find_server(env), spawned = 0, taken = 0, ran = 0, code = 0;
    char worker[64];
    i64 pid = 0;
    if (server < 0) return;
    if (!wait_for(server, HELLO_PATIENCE) || hear(server, &m, fds) <= 0 || m.kind != HELLO || m.flags != WARM_PROTOCOL)
        goto cold;
    pid = m.value;
    packet[sizeof packet - 1] = 0;
    worker[0] = 0;
    append_to(worker, sizeof worker, (char *)packet + sizeof m); /* "pid:start time" */
    if (!tell(server, argc, argv, env)) goto cold;
    for (;;) {
        while (!wait_for(server, ran ? FAREWELL_PATIENCE : taken ? LOOK_PATIENCE : HELLO_PATIENCE)) {
            if (!taken) goto cold; /* it does nothing before we say so, and we never will */
            if (ran) goto gone;
            if (is_stopped(pid)) {
                SYS2(kill, pid, 9); /* so that it cannot go on later */
                goto gone;
            }
        }
        if (hear(server, &m, fds) <= 0) goto gone;
        switch (m.kind) {
        case TAKEN:
            taken = 1;
            ask(server, &(struct iovec){"g", 1}, 1, 0, 0);
            break;
        case SPAWN:
            spawned = 1;
            spawn(m.flags, fds);
            break;
        case WAIT:
            for (follow_up_size = 0; follow_up_size < m.flags && follow_up_size < sizeof follow_up; follow_up_size++)
                follow_up[follow_up_size] = (char)packet[sizeof m + follow_up_size];
            code = stay_with(m.value);
            ran = 1;
            ask(server, &(struct iovec){&code, sizeof code}, 1, 0, 0);
            break;
        case EXIT:
            for (;;) SYS1(exit_group, m.value);
        default: /* COLD: nothing was done */
            goto cold;
        }
    }
gone:
    if (ran) {
        SYS1(close, server);
        remove_cold(env);
        for (;;) SYS1(exit_group, code);
    }
    if (taken) note_reclaim(worker, spawned);
cold:
    SYS1(close, server);
}
#endif
