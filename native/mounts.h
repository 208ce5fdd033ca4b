/* File systems made and mounts changed (fsopen(2), mount_setattr(2)). Included by executor.c. */

static i64 make_mount(struct op *op) {
    i64 fs = SYS2(fsopen, TEXT(MAKE_MOUNT_TYPE), 1 /* FSOPEN_CLOEXEC */), r = 0;
    if (fs < 0) return fs;
    if (op->field[MAKE_MOUNT_LIKE] != -1 && !target_made) {
        struct status like;
        char mode[8];
        r = status_of(handle(op->field[MAKE_MOUNT_LIKE]), "", AT_EMPTY_PATH, &like);
        for (int n = 0; n < 4; n++) mode[n] = (char)('0' + (like.mode >> (9 - 3 * n) & 7));
        mode[4] = 0;
        if (r >= 0) r = SYS5(fsconfig, fs, 1 /* SET_STRING */, "mode", mode, 0);
    }
    char *text = TEXT(MAKE_MOUNT_OPTIONS), *end = text + LENGTH(MAKE_MOUNT_OPTIONS);
    while (r >= 0 && text < end) {
        char *key = text;
        while (*text) text++;
        char *value = ++text;
        while (*text) text++;
        text++;
        r = SYS5(fsconfig, fs, *value ? 1 /* SET_STRING */ : 0 /* SET_FLAG */, key, *value ? value : 0, 0);
    }
    if (r >= 0) r = SYS5(fsconfig, fs, 6 /* CMD_CREATE */, 0, 0, 0);
    if (r >= 0) r = SYS3(fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, op->field[MAKE_MOUNT_ATTRIBUTES]);
    SYS1(close, fs);
    return r;
}

static i64 set_mount_attributes(struct op *op) {
    struct { u64 set, clear, propagation, userns; } attributes = {
        (u64)op->field[SET_MOUNT_ATTRIBUTES_SET], (u64)op->field[SET_MOUNT_ATTRIBUTES_CLEAR],
        (u64)op->field[SET_MOUNT_ATTRIBUTES_PROPAGATION], 0};
    if (op->field[SET_MOUNT_ATTRIBUTES_USERNS] >= 0)
        attributes.userns = (u64)handle(op->field[SET_MOUNT_ATTRIBUTES_USERNS]);
    return SYS5(mount_setattr, handle(op->field[SET_MOUNT_ATTRIBUTES_DIR]), TEXT(SET_MOUNT_ATTRIBUTES_PATH),
                op->field[SET_MOUNT_ATTRIBUTES_FLAGS], &attributes, sizeof attributes);
}
