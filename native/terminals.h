/* The pty of a process, from the devpts of the container. Included by executor.c. */

static i64 open_terminal(struct op *op) {
    int unlock = 0;
    int dir = handle(op->field[OPEN_TERMINAL_DIR]);
    u64 resolve = NO_MAGICLINKS | (dir == -100 ? 0 : IN_ROOT);
    i64 master = open_at(dir, TEXT(OPEN_TERMINAL_PATH), O_RDWR | O_NOCTTY, 0, resolve);
    if (master < 0) return master;
    i64 r = check_multiplexer(master);
    if (r < 0) return r;
    r = SYS3(ioctl, master, 0x40045431 /* TIOCSPTLCK */, &unlock);
    if (r < 0) return r;
    /* By the master, not by a path: nobody can put another file there. Linux 4.13. */
    i64 slave = SYS3(ioctl, master, 0x5441 /* TIOCGPTPEER */, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0) return slave;
    if (op->field[OPEN_TERMINAL_COLUMNS]) {
        u16 size[4] = {(u16)op->field[OPEN_TERMINAL_ROWS], (u16)op->field[OPEN_TERMINAL_COLUMNS], 0, 0};
        SYS3(ioctl, master, 0x5414 /* TIOCSWINSZ */, size);
    }
    if (op->field[OPEN_TERMINAL_RELAYED]) {
        u32 settings[16]; /* struct termios: input, output, control, local modes and the characters */
        if (SYS3(ioctl, slave, 0x5401 /* TCGETS */, settings) >= 0) {
            settings[1] &= ~4u; /* ONLCR */
            SYS3(ioctl, slave, 0x5402 /* TCSETS */, settings);
        }
    }
    keep(op->field[OPEN_TERMINAL_MASTER], master);
    return keep(op->field[OPEN_TERMINAL_SLAVE], slave);
}

static i64 controlling_terminal(struct op *op) {
    int fd = handle(op->field[CONTROLLING_TERMINAL_SLOT]);
    i64 r = SYS3(ioctl, fd, 0x540e /* TIOCSCTTY */, 0);
    for (int n = 0; r >= 0 && n < 3; n++) r = SYS3(dup3, fd, n, 0);
    return r;
}
