/* The hooks that run in the container (runtime-spec, config.md, POSIX-platform Hooks). Included by executor.c. */

/* How a hook ended that failed, and the start of what it said: it goes before the report of the failed step. */
static void report_hook(i32 status, char *text, u64 size) {
    struct report r = {HOOK_ENDED, step, status};
    struct iovec parts[2] = {{&r, sizeof r}, {text, size}};
    send_with(control, parts, 2, -1);
}

static i64 hook(struct op *op) {
    static char said[2048];
    u64 size = 0;
    int input[2], errors[2];
    i32 pidfd = -1, status = 0;
    i64 r = SYS2(pipe2, input, O_CLOEXEC);
    if (r >= 0) r = SYS2(pipe2, errors, O_CLOEXEC);
    if (r < 0) return r;
    char **argv = strings(op, HOOK_ARGV), **env = strings(op, HOOK_ENV);
    /* clone(2), not clone3: a filter may be loaded already, and those that look at its flags refuse clone3 */
    i64 pid = SYS5(clone, 0x1000 | 17 /* CLONE_PIDFD, SIGCHLD */, 0, &pidfd, 0, 0);
    if (pid < 0) return pid;
    if (pid == 0) {
        SYS3(dup3, input[0], 0, 0);
        SYS3(dup3, errors[1], 2, 0);
        SYS1(umask, 022);
        SYS1(chdir, TEXT(HOOK_CWD));
        SYS3(execve, TEXT(HOOK_PATH), argv, env);
        leave(127);
    }
    SYS1(close, input[0]);
    SYS1(close, errors[1]);
    if (inbox_size > 1) write_all(input[1], inbox + 1, inbox_size - 1);
    SYS1(close, input[1]);
    u64 deadline = op->field[HOOK_TIMEOUT] ? now() + (u64)op->field[HOOK_TIMEOUT] * 1000000 : 0;
    int late = 0;
    for (;;) {
        struct pollfd both[2] = {{errors[0], 1, 0}, {pidfd, 1, 0}};
        u64 left = deadline > now() ? deadline - now() : 0;
        struct timespec wait = {(i64)(left / 1000000000), (i64)(left % 1000000000)};
        r = SYS5(ppoll, both, 2, deadline ? &wait : 0, 0, 8);
        if (r == 0) {
            late = 1;
            SYS2(kill, pid, 9);
            break;
        }
        if (r > 0 && both[0].revents) {
            static char rest[4096];
            r = SYS3(read, errors[0], size < sizeof said ? said + size : rest,
                     size < sizeof said ? sizeof said - size : sizeof rest);
            if (r > 0 && size < sizeof said) size += (u64)r;
            if (r > 0) continue;
        }
        if (both[1].revents || (r == 0 && both[0].revents)) break;
    }
    SYS4(wait4, pid, &status, 0, 0);
    SYS1(close, errors[0]);
    SYS1(close, pidfd);
    if (late) return -ETIME;
    if (!status) return 0;
    report_hook(status, said, size);
    return -ECHILD;
}
