/* The floor: the least that a container costs on this kernel, as bare C with nothing else.
 *
 * Makes the namespaces and the mounts of a default container (its view of the cgroups, read-only and masked paths
 * included), starts one static program in it and waits for its end.
 * No cgroup, limit, capability, filter, device or state on disk: what is above this number is ours.
 * `floor ROOTFS PROGRAM` prints the nanoseconds of one run, once for each line that it reads. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *root, *program;

static void must(int ok, const char *what) {
    if (!ok) {
        perror(what);
        _exit(1);
    }
}

static void into(const char *type, const char *at, unsigned long flags, const char *data) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s", root, at);
    mkdir(path, 0755);
    must(mount(type, path, type, flags, data) == 0, at);
}

static struct { char name[256], options[256]; } hierarchy[32];
static int hierarchies;

/* The host's cgroup v1 hierarchies, which a default container gets to see; on a pure v2 host there is one mount. */
static void find_hierarchies(void) {
    FILE *f = fopen("/proc/self/cgroup", "r");
    char line[600];
    while (f && fgets(line, sizeof line, f) && hierarchies < 32) {
        char *names = strchr(line, ':') + 1, *end = strchr(names, ':');
        *end = 0;
        if (!*names || strlen(names) > 255) continue;
        strcpy(hierarchy[hierarchies].options, names);
        strcpy(hierarchy[hierarchies].name, strncmp(names, "name=", 5) ? names : names + 5);
        hierarchies++;
    }
    if (f) fclose(f);
}

static int contained(void *unused) {
    (void)unused;
    setsid();
    must(unshare(CLONE_NEWCGROUP) == 0, "cgroup namespace");
    must(mount("", "/", "", MS_REC | MS_SLAVE, "") == 0, "slave");
    struct ifreq lo = {0};
    strcpy(lo.ifr_name, "lo");
    lo.ifr_flags = IFF_UP | IFF_RUNNING;
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(ioctl(s, SIOCSIFFLAGS, &lo) == 0, "lo");
    close(s);
    must(mount(root, root, "", MS_BIND | MS_REC, "") == 0, "bind");
    into("proc", "/proc", 0, "");
    into("tmpfs", "/dev", MS_NOSUID, "mode=755,size=65536k");
    char null[4096];
    snprintf(null, sizeof null, "%s/dev/null", root);
    must(mknod(null, S_IFCHR | 0666, 0x103) == 0, "null"); /* to hide paths with */
    into("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    into("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");
    into("mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    into("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, "");
    into("tmpfs", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755");
    for (int i = 0; i < hierarchies; i++) {
        char at[512];
        snprintf(at, sizeof at, "/sys/fs/cgroup/%.255s", hierarchy[i].name);
        into("cgroup", at, MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, hierarchy[i].options);
    }
    must(chdir(root) == 0, "chdir");
    must(syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
    must(umount2(".", MNT_DETACH) == 0, "umount");
    must(chdir("/") == 0 && sethostname("floor", 5) == 0, "hostname");
    static const char *const fixed[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    for (unsigned i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (mount(fixed[i], fixed[i], "", MS_BIND | MS_REC, "") == 0)
            must(mount("", fixed[i], "", MS_BIND | MS_REMOUNT | MS_RDONLY, "") == 0, fixed[i]);
    static const char *const hidden[] = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                                         "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                                         "/proc/sched_debug", "/sys/firmware", "/proc/scsi"};
    for (unsigned i = 0; i < sizeof hidden / sizeof *hidden; i++)
        if (mount("/dev/null", hidden[i], "", MS_BIND, "") != 0)
            mount("tmpfs", hidden[i], "tmpfs", MS_RDONLY, ""); /* a directory, or not there */
    must(mount("", "/", "", MS_BIND | MS_REMOUNT | MS_RDONLY, "") == 0, "read-only");
    execl(program, program, (char *)0);
    must(0, "exec");
    return 1;
}

int main(int argc, char **argv) {
    static char stack[65536] __attribute__((aligned(16)));
    char line[16];
    if (argc != 3) return 2;
    root = argv[1];
    program = argv[2];
    find_hierarchies();
    while (fgets(line, sizeof line, stdin)) {
        struct timespec a, b;
        int status;
        clock_gettime(CLOCK_MONOTONIC, &a);
        pid_t pid = clone(contained, stack + sizeof stack,
                          CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD, 0);
        must(pid > 0, "clone");
        must(waitpid(pid, &status, 0) == pid && status == 0, "wait");
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("%ld\n", (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec);
        fflush(stdout);
    }
    return 0;
}
