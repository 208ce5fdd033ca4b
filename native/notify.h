/* A seccomp filter with a listener (SCMP_ACT_NOTIFY): its descriptor must reach the agent before this process makes
 * any call that the filter hands to the agent, or both would wait for each other for ever.
 *
 * So a thread that shares our memory and descriptors is made before the filter is loaded, which it is not under: it
 * sends the descriptor with the text that says whose it is, and ends. Until then we wait without a system call.
 * Included by executor.c. */

static char kept_text[65536];
static u32 kept_size;
static volatile i64 notify_listener, notify_answer;
static int notify_agent;
#define PENDING (-4097) /* neither a descriptor nor an error */

/* A thread on a stack of its own that calls a function, which does not return. */
static i64 make_thread(void (*function)(void), void *stack_top) {
    /* CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM */
    u64 flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000;
#if defined(__x86_64__)
    i64 r;
    register u64 none1 __asm__("r10") = 0;
    register u64 none2 __asm__("r8") = 0;
    register void (*f)(void) __asm__("r12") = function;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "call *%%r12\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(r)
                     : "a"(56L /* clone */), "D"(flags), "S"(stack_top), "d"(0L), "r"(none1), "r"(none2), "r"(f)
                     : "rcx", "r11", "memory");
    return r;
#else
    register i64 x8 __asm__("x8") = 220; /* clone */
    register u64 x0 __asm__("x0") = flags;
    register void *x1 __asm__("x1") = stack_top;
    register u64 x2 __asm__("x2") = 0;
    register u64 x3 __asm__("x3") = 0;
    register u64 x4 __asm__("x4") = 0;
    register void (*x9)(void) __asm__("x9") = function;
    __asm__ volatile("svc 0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "blr x9\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x9)
                     : "memory", "x30");
    return (i64)x0;
#endif
}

static void send_listener(void) {
    struct iovec text = {kept_text, kept_size};
    while (notify_listener == PENDING) SYS0(sched_yield);
    if (notify_listener >= 0) {
        i64 r = send_with(notify_agent, &text, 1, (int)notify_listener);
        SYS1(close, notify_listener); /* the program has no business with it */
        SYS1(close, notify_agent);
        notify_answer = r < 0 ? r : r == kept_size ? 0 : -EPIPE;
    }
    for (;;) SYS1(exit, 0);
}

static i64 seccomp_notify(struct op *op) {
    struct { u16 length; u64 filter; } load = {
        (u16)(LENGTH(SECCOMP_NOTIFY_FILTER) / 8), (u64)TEXT(SECCOMP_NOTIFY_FILTER)};
    i64 stack = SYS6(mmap, 0, 65536, 3, 0x22, -1, 0), r;
    if (stack < 0 && stack > -4096) return stack;
    notify_agent = handle(op->field[SECCOMP_NOTIFY_AGENT]);
    notify_listener = notify_answer = PENDING;
    r = make_thread(send_listener, (void *)(stack + 65536));
    if (r < 0) return r;
    r = SYS3(seccomp, 1 /* SET_MODE_FILTER */, op->field[SECCOMP_NOTIFY_FLAGS], &load);
    notify_listener = r;
    if (r < 0) return r;
    while (notify_answer == PENDING) {}
    return notify_answer;
}
