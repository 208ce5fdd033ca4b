/* The built-in image's one program: a container's own report of what isolates it, and of who brought it there.
 *
 * It knows nothing that it does not read from the kernel (proc(5), namespaces(7), capabilities(7), cgroups(7)),
 * so it tells the truth under any runtime. No C library: the image is this file and nothing else. */
#include "syscalls.h"

#define CAPACITY 65536
static char text[CAPACITY], out[CAPACITY];
static u64 used;

static u64 length(const char *s) {
    u64 n = 0;
    while (s[n]) n++;
    return n;
}

static void put_bytes(const char *s, u64 n) {
    for (u64 i = 0; i < n && used < CAPACITY; i++) out[used++] = s[i];
}

static void put(const char *s) { put_bytes(s, length(s)); }

static void put_number(u64 value) {
    char digits[24];
    int n = 0;
    do digits[n++] = (char)('0' + value % 10); while (value /= 10);
    while (n) put_bytes(&digits[--n], 1);
}

static void label(const char *name) {
    u64 n = length(name);
    put("  ");
    put(name);
    while (n++ < 14) put(" ");
}

/* The file's text in `text`, its length; 0 when there is none. */
static u64 read_file(const char *path) {
    struct { u64 flags, mode, resolve; } how = {0, 0, 0};
    i64 fd = SYS4(openat2, -100, path, &how, sizeof how);
    u64 n = 0;
    if (fd < 0) return 0;
    for (;;) {
        i64 got = SYS3(read, fd, text + n, CAPACITY - 1 - n);
        if (got <= 0) break;
        n += (u64)got;
    }
    SYS1(close, fd);
    text[n] = 0;
    return n;
}

/* The value after "Key:" of /proc/self/status in `text`, "" when it is missing. */
static const char *field(const char *key) {
    u64 n = length(key);
    for (const char *at = text; *at;) {
        u64 i = 0;
        while (i < n && at[i] == key[i]) i++;
        if (i == n && at[n] == ':') {
            at += n + 1;
            while (*at == ' ' || *at == '\t') at++;
            return at;
        }
        while (*at && *at != '\n') at++;
        if (*at) at++;
    }
    return "";
}

static void put_word(const char *s) {
    while (*s && *s != '\n' && *s != '\t' && *s != ' ') put_bytes(s++, 1);
}

static u64 hex(const char *s) {
    u64 value = 0;
    for (;; s++) {
        if (*s >= '0' && *s <= '9') value = value << 4 | (u64)(*s - '0');
        else if (*s >= 'a' && *s <= 'f') value = value << 4 | (u64)(*s - 'a' + 10);
        else return value;
    }
}

/* linux/capability.h, by number */
static const char *const capabilities[] = {
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
};
#define CAPABILITIES (sizeof capabilities / sizeof capabilities[0])

static void report_process(void) {
    read_file("/proc/self/status");
    label("process");
    put("pid ");
    put_word(field("Pid"));
    put(", parent ");
    put_word(field("PPid"));
    put(", user ");
    put_word(field("Uid"));
    put(", group ");
    put_word(field("Gid"));
    put("\n");
    u64 set = hex(field("CapEff")), held = 0;
    for (u64 i = 0; i < CAPABILITIES; i++) held += set >> i & 1;
    label("capabilities");
    put_number(held);
    put(" of ");
    put_number(CAPABILITIES);
    u64 column = 999;
    for (u64 i = 0; i < CAPABILITIES; i++) {
        if (!(set >> i & 1) || held == CAPABILITIES) continue;
        if (column > 70) {
            put("\n");
            label("");
            column = 0;
        }
        put(capabilities[i]);
        put(" ");
        column += length(capabilities[i]) + 1;
    }
    put("\n");
    label("seccomp");
    const char *mode = field("Seccomp");
    put(*mode == '2' ? "a filter looks at each system call" : *mode == '1' ? "strict" : "off");
    put(*field("NoNewPrivs") == '1' ? ", no new privileges\n" : "\n");
}

static void report_namespaces(void) {
    static const char *const kinds[] = {"mnt", "pid", "net", "uts", "ipc", "user", "cgroup", "time"};
    for (u64 i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char path[32] = "/proc/self/ns/", target[64];
        u64 n = length(path);
        for (u64 j = 0; j <= length(kinds[i]); j++) path[n + j] = kinds[i][j];
        i64 got = SYS4(readlinkat, -100, path, target, sizeof target);
        if (got <= 0) continue;
        label(i ? "" : "namespaces");
        put_bytes(target, (u64)got);
        put("\n");
    }
}

static void limit(const char *name, const char *unit, const char *v2, const char *v1) {
    u64 n = read_file(v2);
    if (!n) n = read_file(v1);
    if (!n) return;
    u64 value = 0, digits = 0;
    while (text[digits] >= '0' && text[digits] <= '9') value = value * 10 + (u64)(text[digits++] - '0');
    label("");
    put(name);
    put(" ");
    if (!digits || value > 1UL << 60 || text[0] == '-') put("unlimited");
    else {
        put_number(value);
        put(unit);
    }
    put("\n");
}

static void report_cgroup(void) {
    u64 n = read_file("/proc/self/cgroup");
    const char *path = "";
    for (u64 i = 0; i + 8 < n; i++)  /* v1: the memory hierarchy's line; v2: the only one, "0::/path" */
        if ((text[i] == 'm' && text[i + 1] == 'e' && text[i + 5] == 'y' && text[i + 6] == ':')) path = text + i + 7;
    if (!*path)
        for (u64 i = 0; i + 2 < n; i++)
            if (text[i] == ':' && text[i + 1] == ':') path = text + i + 2;
    label("cgroup");
    put_word(path);
    put("\n");
    limit("memory", " bytes", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes");
    limit("processes", "", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max");
    limit("cpu", " us in each period", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
}

static void report_mounts(void) {
    u64 n = read_file("/proc/self/mounts"), mounts = 0;
    for (u64 at = 0; at < n; mounts++) {
        u64 start[4], field_number = 0;
        for (start[0] = at; at < n && text[at] != '\n'; at++)
            if (text[at] == ' ' && field_number < 3) start[++field_number] = at + 1;
        if (field_number == 3) {
            label(mounts ? "" : "mounts");
            put_word(text + start[2]);
            put(" on ");
            put_word(text + start[1]);
            put("\n");
        }
        at++;
    }
}

__attribute__((used, noreturn)) static void start(i64 *stack) {
    (void)stack;
    put("Hello from inside a container.\n\nWhat isolates me:\n");
    label("hostname");
    u64 n = read_file("/proc/sys/kernel/hostname");
    put_bytes(text, n ? n - 1 : 0);
    put("\n");
    report_process();
    report_namespaces();
    report_cgroup();
    report_mounts();
    put("\nWho brought me here, each layer over the real program's own protocol:\n"
        "  boxship        the command line       spoke HTTP, as the docker CLI does, to\n"
        "  engine         the Docker Engine API  which called containerd's gRPC services\n"
        "  containerd     images and snapshots   which stacked my root file system and called\n"
        "  shim           my parent, over ttrpc  which outlives every daemon, keeps my log and called\n"
        "  libcontainer   the OCI runtime        which turned config.json into a plan of system calls for\n"
        "  executor       C, without libc        which made the namespaces and mounts above, and then\n"
        "  execve(2)      became me.\n\n"
        "See it happen:      boxship trace -- run --rm hello\n"
        "See the plan:       boxship-runc explain BUNDLE\n");
    for (u64 sent = 0; sent < used;) {
        i64 wrote = SYS3(write, 1, out + sent, used - sent);
        if (wrote <= 0) SYS1(exit_group, 1);
        sent += (u64)wrote;
    }
    SYS1(exit_group, 0);
    __builtin_unreachable();
}

ENTRY(start);
