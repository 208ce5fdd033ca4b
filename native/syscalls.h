/* Raw system calls for programs without a C library: x86_64 and aarch64.
 *
 * Numbers are from the kernel's own tables (arch/x86/entry/syscalls/syscall_64.tbl and
 * include/uapi/asm-generic/unistd.h); those from 424 on are the same everywhere. Two flags of open(2) are not
 * (arch/arm64/include/uapi/asm/fcntl.h).
 * Every call returns the kernel's own answer: a negative errno on failure. */
#ifndef BOXSHIP_SYSCALLS_H
#define BOXSHIP_SYSCALLS_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int i32;
typedef long i64;

#if defined(__x86_64__)
#define NR_read 0
#define NR_write 1
#define NR_close 3
#define NR_mmap 9
#define NR_munmap 11
#define NR_fstatfs 138
#define NR_exit 60
#define NR_clone 56
#define NR_statx 332
#define NR_sched_yield 24
#define NR_rt_sigaction 13
#define NR_rt_sigprocmask 14
#define NR_ioctl 16
#define NR_socket 41
#define NR_connect 42
#define NR_sendto 44
#define NR_recvfrom 45
#define NR_sendmsg 46
#define NR_recvmsg 47
#define NR_execve 59
#define NR_exit_group 231
#define NR_wait4 61
#define NR_kill 62
#define NR_fcntl 72
#define NR_getcwd 79
#define NR_chdir 80
#define NR_fchdir 81
#define NR_umask 95
#define NR_setsid 112
#define NR_setgroups 116
#define NR_setresuid 117
#define NR_setresgid 119
#define NR_capset 126
#define NR_personality 135
#define NR_pivot_root 155
#define NR_prctl 157
#define NR_chroot 161
#define NR_umount2 166
#define NR_mount 165
#define NR_sethostname 170
#define NR_setdomainname 171
#define NR_getdents64 217
#define NR_clock_gettime 228
#define NR_keyctl 250
#define NR_ioprio_set 251
#define NR_mkdirat 258
#define NR_mknodat 259
#define NR_fchownat 260
#define NR_newfstatat 262
#define NR_unlinkat 263
#define NR_symlinkat 266
#define NR_readlinkat 267
#define NR_fchmodat 268
#define NR_ppoll 271
#define NR_unshare 272
#define NR_accept4 288
#define NR_dup3 292
#define NR_pipe2 293
#define NR_prlimit64 302
#define NR_setns 308
#define NR_seccomp 317
#define NR_sched_setattr 314
#define NR_sched_setaffinity 203
#define NR_memfd_create 319
#define NR_getpid 39
#define NR_getuid 102
#define NR_getsockopt 55
#define NR_set_mempolicy 238
#define NR_geteuid 107
#define NR_rt_sigtimedwait 128
#define NR_execveat 322
#define O_DIRECTORY 0200000
#define O_NOFOLLOW 0400000
#elif defined(__aarch64__)
#define NR_read 63
#define NR_write 64
#define NR_close 57
#define NR_mmap 222
#define NR_munmap 215
#define NR_fstatfs 44
#define NR_exit 93
#define NR_clone 220
#define NR_statx 291
#define NR_sched_yield 124
#define NR_rt_sigaction 134
#define NR_rt_sigprocmask 135
#define NR_ioctl 29
#define NR_socket 198
#define NR_connect 203
#define NR_sendto 206
#define NR_recvfrom 207
#define NR_sendmsg 211
#define NR_recvmsg 212
#define NR_execve 221
#define NR_exit_group 94
#define NR_wait4 260
#define NR_kill 129
#define NR_fcntl 25
#define NR_getcwd 17
#define NR_chdir 49
#define NR_fchdir 50
#define NR_umask 166
#define NR_setsid 157
#define NR_setgroups 159
#define NR_setresuid 147
#define NR_setresgid 149
#define NR_capset 91
#define NR_personality 92
#define NR_pivot_root 41
#define NR_prctl 167
#define NR_chroot 51
#define NR_umount2 39
#define NR_mount 40
#define NR_sethostname 161
#define NR_setdomainname 162
#define NR_getdents64 61
#define NR_clock_gettime 113
#define NR_keyctl 219
#define NR_ioprio_set 30
#define NR_mkdirat 34
#define NR_mknodat 33
#define NR_fchownat 54
#define NR_newfstatat 79
#define NR_unlinkat 35
#define NR_symlinkat 36
#define NR_readlinkat 78
#define NR_fchmodat 53
#define NR_ppoll 73
#define NR_unshare 97
#define NR_accept4 242
#define NR_dup3 24
#define NR_pipe2 59
#define NR_prlimit64 261
#define NR_setns 268
#define NR_seccomp 277
#define NR_sched_setattr 274
#define NR_sched_setaffinity 122
#define NR_memfd_create 279
#define NR_getpid 172
#define NR_getuid 174
#define NR_getsockopt 209
#define NR_set_mempolicy 237
#define NR_geteuid 175
#define NR_rt_sigtimedwait 137
#define NR_execveat 281
#define O_DIRECTORY 040000
#define O_NOFOLLOW 0100000
#else
#error "boxship's native programs know x86_64 and aarch64"
#endif

#define NR_open_tree 428
#define NR_move_mount 429
#define NR_fsopen 430
#define NR_fsconfig 431
#define NR_fsmount 432
#define NR_clone3 435
#define NR_close_range 436
#define NR_openat2 437
#define NR_faccessat2 439
#define NR_mount_setattr 442

static inline i64 call(i64 n, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
#if defined(__x86_64__)
    i64 r;
    register i64 r10 __asm__("r10") = d;
    register i64 r8 __asm__("r8") = e;
    register i64 r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
#else
    register i64 x8 __asm__("x8") = n;
    register i64 x0 __asm__("x0") = a;
    register i64 x1 __asm__("x1") = b;
    register i64 x2 __asm__("x2") = c;
    register i64 x3 __asm__("x3") = d;
    register i64 x4 __asm__("x4") = e;
    register i64 x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
#endif
}

#define SYS0(n) call(NR_##n, 0, 0, 0, 0, 0, 0)
#define SYS1(n, a) call(NR_##n, (i64)(a), 0, 0, 0, 0, 0)
#define SYS2(n, a, b) call(NR_##n, (i64)(a), (i64)(b), 0, 0, 0, 0)
#define SYS3(n, a, b, c) call(NR_##n, (i64)(a), (i64)(b), (i64)(c), 0, 0, 0)
#define SYS4(n, a, b, c, d) call(NR_##n, (i64)(a), (i64)(b), (i64)(c), (i64)(d), 0, 0)
#define SYS5(n, a, b, c, d, e) call(NR_##n, (i64)(a), (i64)(b), (i64)(c), (i64)(d), (i64)(e), 0)
#define SYS6(n, a, b, c, d, e, f) \
    call(NR_##n, (i64)(a), (i64)(b), (i64)(c), (i64)(d), (i64)(e), (i64)(f))

/* clone3(2): the pid or an error; the new process calls `function`, which does not return, wherever its stack is. */
#if defined(__x86_64__)
#define CLONE3(args, size, function) __extension__({                                              \
    i64 r_;                                                                                       \
    __asm__ volatile("syscall\ntest %%rax, %%rax\njnz 1f\n"                                       \
                     "xor %%ebp, %%ebp\nand $-16, %%rsp\ncall " #function "\nhlt\n1:"             \
                     : "=a"(r_) : "a"(NR_clone3), "D"(args), "S"(size) : "rcx", "r11", "memory"); \
    r_; })
#else
#define CLONE3(args, size, function) __extension__({                                  \
    register i64 x8_ __asm__("x8") = NR_clone3;                                       \
    register i64 x0_ __asm__("x0") = (i64)(args);                                     \
    register i64 x1_ __asm__("x1") = (i64)(size);                                     \
    __asm__ volatile("svc 0\ncbnz x0, 1f\nmov x29, #0\nbl " #function "\n1:"         \
                     : "+r"(x0_) : "r"(x8_), "r"(x1_) : "x30", "memory");             \
    x0_; })
#endif

/* The entry: the kernel leaves argc, argv, envp and auxv on the stack; `start` takes a pointer to argc. */
#if defined(__x86_64__)
#define ENTRY(start)                         \
    __asm__(".globl _start\n_start:\n"       \
            "xor %ebp, %ebp\nmov %rsp, %rdi\n" \
            "and $-16, %rsp\ncall " #start "\nhlt\n")
#else
#define ENTRY(start)                                     \
    __asm__(".globl _start\n_start:\n"                   \
            "mov x29, #0\nmov x30, #0\nmov x0, sp\nbl " #start "\n")
#endif

/* The compiler may call these two for structure copies and initialisers even without a library. */
void *memset(void *to, int byte, u64 size) {
    u8 *p = to;
    while (size--) *p++ = (u8)byte;
    return to;
}
void *memcpy(void *to, const void *from, u64 size) {
    u8 *p = to;
    const u8 *q = from;
    while (size--) *p++ = *q++;
    return to;
}

#endif
