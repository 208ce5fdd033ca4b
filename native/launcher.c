/* `boxship-runc` and `containerd-shim-boxship-v2`: have a plan server of the same user do it (warm.h, the runtime only),
 * or find the Python beside this program and start it cold.
 *
 * An installed console script would import the site of a whole environment first (25 ms with many packages).
 * `python -I -S` starts in 7 ms. Which module it imports is decided by the name that we were called by.
 * Layout: BIN/boxship-runc, BIN/python3, BIN/../lib/python3.N/{site,dist}-packages/boxship; an editable install is
 * compiled with -DPACKAGE="/path/to/src/boxship". */
#include "syscalls.h"

#define PATH_SIZE 4096
#define O_CLOEXEC 02000000

static char self[PATH_SIZE], python[PATH_SIZE], entry[PATH_SIZE], library[PATH_SIZE];

static u64 length(const char *s) {
    u64 n = 0;
    while (s[n]) n++;
    return n;
}

/* Appends up to the size of our buffers; a path that does not fit is one that does not exist. */
static void append(char *to, const char *text) {
    u64 at = length(to);
    while (*text && at < PATH_SIZE - 1) to[at++] = *text++;
    to[at] = 0;
}

/* The same for a buffer of another size. */
static void append_to(char *to, u64 size, const char *text) {
    u64 at = length(to);
    while (*text && at < size - 1) to[at++] = *text++;
    to[at] = 0;
}

static void directory_of(char *path) {
    u64 at = length(path);
    while (at && path[at] != '/') at--;
    path[at] = 0;
}

static int ends_with(const char *text, const char *end) {
    u64 n = length(text), m = length(end);
    if (m > n) return 0;
    for (u64 i = 0; i < m; i++)
        if (text[n - m + i] != end[i]) return 0;
    return 1;
}

static int starts_with(const char *text, const char *start) {
    while (*start)
        if (*text++ != *start++) return 0;
    return 1;
}

static int exists(const char *path) { return SYS4(faccessat2, -100, path, 4 /* R_OK */, 0) == 0; }

static void say(const char *text) { SYS3(write, 2, text, length(text)); }

/* Whether `entry` is in a package below `root`; then the variable `entry` names it. */
static int find_in(const char *root, const char *name) {
    entry[0] = 0;
    append(entry, root);
    append(entry, name);
    return exists(entry);
}

static int find(const char *bin, const char *name) {
    static u8 entries[16384];
#ifdef PACKAGE
    if (find_in(PACKAGE, name)) return 1;
#endif
    append(library, bin);
    append(library, "/../lib");
    i64 fd = SYS4(openat2, -100, library, (&(struct { u64 flags, mode, resolve; }){O_DIRECTORY | O_CLOEXEC, 0, 0}), 24);
    if (fd < 0) return 0;
    u64 base = length(library);
    for (;;) {
        i64 size = SYS3(getdents64, fd, entries, sizeof entries);
        if (size <= 0) return 0;
        /* struct linux_dirent64: u64 ino, i64 off, u16 reclen, u8 type, name */
        for (i64 at = 0; at < size; at += *(u16 *)(entries + at + 16)) {
            const char *child = (const char *)entries + at + 19;
            if (!starts_with(child, "python3")) continue;
            static const char *const kinds[] = {"/site-packages/boxship", "/dist-packages/boxship"};
            for (int kind = 0; kind < 2; kind++) {
                library[base] = 0;
                append(library, "/");
                append(library, child);
                append(library, kinds[kind]);
                if (find_in(library, name)) return 1;
            }
        }
    }
}

/* src/boxship/coldstart.py says why it is not simply imported. There is a file for each verb; the first
 * object in the file is the code of a function (the file's content, program, arguments). */
#define START(module) \
    "import sys,marshal,gc\n" \
    "gc.disable()\n" \
    "r=sys.argv.pop(1);a=sys.argv[1:];sys.path.insert(0,r);m='" module "'\n" \
    "v=next((w for w in a if ' '+w+' ' in ' create start state kill delete exec run list ps pause resume '),'')\n" \
    "p=r+'/boxship/__pycache__/cold-'+m+'-'+v+'.'+sys.implementation.cache_tag\n" \
    "try:\n" \
    " f=open(p,'rb');c=marshal.loads(f.read());f.close()\n" \
    "except Exception:c=0\n" \
    "if c:type(lambda:0)(c[0],{'__builtins__':__builtins__})(c,m,a)\n" \
    "from boxship.coldstart import start\n" \
    "sys.exit(start(r,m,a,p))"

#include "warm.h"

/* Become Python, cold; returns when it cannot be executed. `env` is NULL-terminated, as argv is. */
static void start_cold(const char *name, char *code, i64 argc, char **argv, char **env) {
    i64 variables = 0;
    while (env[variables]) variables++;
    char *args[argc + 9], *all[variables + 2];
    i64 n = 0, v = 0;
    entry[length(entry) - length(name)] = 0;
    directory_of(entry);
    append(python, self);
    append(python, "/python3");
    if (!exists(python)) {
        python[0] = 0;
        append(python, "/usr/bin/python3");
    }
    args[n++] = python;
    args[n++] = "-I";
    args[n++] = "-S";
    args[n++] = "-X";
    args[n++] = "no_debug_ranges"; /* smaller code to load; tracebacks keep their line numbers */
    args[n++] = "-c";
    args[n++] = code;
    args[n++] = entry; /* the directory that the package is in; the code takes it out of sys.argv again */
    for (i64 i = 1; i < argc; i++) args[n++] = argv[i];
    args[n] = 0;
    for (; v < variables; v++) all[v] = env[v];
    if (!ends_with(reclaim, "=")) all[v++] = reclaim;
    all[v] = 0;
    SYS3(execve, python, args, all);
}

static int find_package(const char *name) {
    i64 r = SYS4(readlinkat, -100, "/proc/self/exe", self, PATH_SIZE - 1);
    if (r < 0) {
        say("boxship: cannot read /proc/self/exe\n");
        return 0;
    }
    directory_of(self);
    if (find(self, name)) return 1;
    say("boxship: the Python package is not installed beside ");
    say(self);
    say("\n");
    return 0;
}

#define RUNTIME "/runtime/main.py"
#define SHIM "/shim/cold.py"

static void remove_cold(char **env) {
    char *argv[16] = {"boxship-runc"};
    i64 argc = 1;
    for (u32 at = 0; at < follow_up_size && argc < 15; at++) {
        argv[argc++] = follow_up + at;
        while (at < follow_up_size && follow_up[at]) at++;
    }
    if (argc < 2) return;
    struct { u64 words[11]; } how = {{0}};
    how.words[4] = 17;
    i64 pid = SYS2(clone3, &how, sizeof how);
    if (pid == 0) {
        if (find_package(RUNTIME)) start_cold(RUNTIME, START("boxship.runtime.main"), argc, argv, env);
        for (;;) SYS1(exit_group, 127);
    }
    if (pid > 0) SYS4(wait4, pid, 0, 0, 0);
}

__attribute__((used, noreturn)) static void start(i64 *stack) {
    i64 argc = stack[0];
    char **argv = (char **)(stack + 1), **env = argv + argc + 1;
    int shim = ends_with(argc ? argv[0] : "", "containerd-shim-boxship-v2");
    if (!shim) try_warm((int)argc, argv, env);
    if (find_package(shim ? SHIM : RUNTIME)) {
        if (shim) start_cold(SHIM, START("boxship.shim.cold"), argc, argv, env);
        else start_cold(RUNTIME, START("boxship.runtime.main"), argc, argv, env);
        say("boxship: cannot execute ");
        say(python);
        say("\n");
    }
    for (;;) SYS1(exit_group, 127);
}

ENTRY(start);
