/* The process that `docker run --init` puts in front of a container's own: pid 1's two duties and nothing else.
 *
 *   init -- COMMAND [ARG ...]
 *
 * It starts the command in the foreground of its session, passes every signal on to it, reaps orphans, and ends as
 * the command ended: its exit code, or 128 + the signal. */
#include "syscalls.h"

#if defined(__x86_64__)
#define NR_clone 56
#define NR_rt_sigtimedwait 128
#define NR_setpgid 109
#else
#define NR_clone 220
#define NR_rt_sigtimedwait 137
#define NR_setpgid 154
#endif

#define SIGCHLD 17
#define SIGTTIN 21
#define SIGTTOU 22
#define WNOHANG 1
#define TIOCSPGRP 0x5410
#define ENOENT 2

static void say(const char *s) {
    u64 n = 0;
    while (s[n]) n++;
    SYS3(write, 2, s, n);
}

static int is_path(const char *s) {
    for (; *s; s++)
        if (*s == '/') return 1;
    return 0;
}

/* execve along PATH, as a shell would; gives the errno that tells most. */
static i64 execute(char **argv, char **envp) {
    if (is_path(argv[0])) return SYS3(execve, argv[0], argv, envp);
    const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (char **e = envp; *e; e++)
        if ((*e)[0] == 'P' && (*e)[1] == 'A' && (*e)[2] == 'T' && (*e)[3] == 'H' && (*e)[4] == '=') path = *e + 5;
    static char full[4096];
    i64 worst = -ENOENT;
    while (*path) {
        u64 n = 0;
        while (*path && *path != ':' && n < sizeof full / 2) full[n++] = *path++;
        while (*path && *path != ':') path++;
        if (*path == ':') path++;
        full[n++] = '/';
        for (const char *c = argv[0]; *c && n < sizeof full - 1; c++) full[n++] = *c;
        full[n] = 0;
        i64 error = SYS3(execve, full, argv, envp);
        if (error != -ENOENT) worst = error;
    }
    return worst;
}

__attribute__((used, noreturn)) static void start(i64 *stack) {
    i64 argc = stack[0];
    char **argv = (char **)(stack + 1), **envp = argv + argc + 1;
    argv++;
    if (*argv && (*argv)[0] == '-' && (*argv)[1] == '-' && !(*argv)[2]) argv++;
    if (!*argv) {
        say("init: no command given\n");
        SYS1(exit_group, 127);
    }
    /* Signals wait for rt_sigtimedwait instead of interrupting; those of job control and of faults stay the kernel's. */
    u64 every = ~0UL, kept = 1UL << (4 - 1) | 1UL << (5 - 1) | 1UL << (6 - 1) | 1UL << (7 - 1) | 1UL << (8 - 1) |
                             1UL << (11 - 1) | 1UL << (31 - 1) | 1UL << (SIGTTIN - 1) | 1UL << (SIGTTOU - 1);
    u64 waited = every & ~kept, before = 0;
    SYS4(rt_sigprocmask, 2 /* SIG_SETMASK */, &waited, &before, 8);
    i64 child = SYS5(clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        /* A group of its own in the foreground, so that ctrl-c reaches it and not init twice. */
        SYS2(setpgid, 0, 0);
        u64 stops = 1UL << (SIGTTOU - 1);
        SYS4(rt_sigprocmask, 0 /* SIG_BLOCK */, &stops, 0, 8);
        i32 group = (i32)SYS0(getpid);
        SYS3(ioctl, 0, TIOCSPGRP, &group);
        SYS4(rt_sigprocmask, 2, &before, 0, 8);
        i64 error = execute(argv, envp);
        say("init: cannot execute ");
        say(argv[0]);
        say(error == -ENOENT ? ": not found\n" : ": not executable\n");
        SYS1(exit_group, error == -ENOENT ? 127 : 126);
    }
    if (child < 0) {
        say("init: cannot fork\n");
        SYS1(exit_group, 1);
    }
    for (;;) {
        i64 number = SYS4(rt_sigtimedwait, &waited, 0, 0, 8);
        if (number < 0) continue;
        if (number != SIGCHLD) {
            SYS2(kill, child, number);
            continue;
        }
        for (;;) {
            i32 status = 0;
            i64 pid = SYS4(wait4, -1, &status, WNOHANG, 0);
            if (pid <= 0) break;
            if (pid == child) SYS1(exit_group, status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff);
        }
    }
}

ENTRY(start);
