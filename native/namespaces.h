/* A user namespace for id-mapped mounts, and netlink requests. Included by executor.c. */

/* One decimal number. */
static char *decimal(char *to, u64 n) {
    char digits[24];
    int count = 0;
    do digits[count++] = (char)('0' + n % 10);
    while (n /= 10);
    while (count) *to++ = digits[--count];
    *to = 0;
    return to;
}

static i64 write_below_proc(i64 pid, const char *name, const char *data, u64 size) {
    char path[64] = "/proc/";
    char *end = decimal(path + 6, (u64)pid);
    while ((*end++ = *name++)) {}
    i64 fd = open_at(-100, path, O_WRONLY, 0, 0);
    if (fd < 0) return fd;
    i64 r = write_all((int)fd, data, size);
    SYS1(close, fd);
    return r;
}

/* A user namespace that nobody lives in, with these maps: mount_setattr(2) takes an id map in this form. */
static i64 user_namespace(struct op *op) {
    struct { u64 words[11]; } args = {{0}};
    struct timespec forever = {1000000, 0};
    char path[64] = "/proc/", *suffix = "/ns/user", *end;
    args.words[0] = 0x10000000; /* CLONE_NEWUSER */
    args.words[4] = 17;         /* exit_signal SIGCHLD */
    i64 pid = SYS2(clone3, &args, sizeof args), r;
    if (pid < 0) return pid;
    if (pid == 0)
        for (;;) SYS5(ppoll, 0, 0, &forever, 0, 8);
    r = write_below_proc(pid, "/uid_map", TEXT(USER_NAMESPACE_UIDS), LENGTH(USER_NAMESPACE_UIDS));
    if (r >= 0) r = write_below_proc(pid, "/gid_map", TEXT(USER_NAMESPACE_GIDS), LENGTH(USER_NAMESPACE_GIDS));
    if (r >= 0) {
        end = decimal(path + 6, (u64)pid);
        while ((*end++ = *suffix++)) {}
        r = open_at(-100, path, 0, 0, 0);
    }
    SYS2(kill, pid, 9);
    SYS4(wait4, pid, 0, 0, 0);
    return r;
}

/* One rtnetlink(7) request with NLM_F_ACK; the kernel's answer is its error number. */
static i64 netlink(struct op *op) {
    struct { u32 length; u16 type, flags; u32 sequence, port; i32 error; char rest[1024]; } answer;
    i64 fd = SYS3(socket, 16 /* AF_NETLINK */, 3 | O_CLOEXEC /* SOCK_RAW */, 0), r;
    if (fd < 0) return fd;
    r = SYS6(sendto, fd, TEXT(NETLINK_REQUEST), LENGTH(NETLINK_REQUEST), 0, 0, 0);
    if (r >= 0) do r = SYS6(recvfrom, fd, &answer, sizeof answer, 0, 0, 0);
        while (r == -EINTR);
    SYS1(close, fd);
    if (r < 0) return r;
    if (r < 20) return -EPROTO;
    return answer.type == 2 /* NLMSG_ERROR */ ? answer.error : -EEXIST; /* what was asked for is there */
}
