#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "CProcessSpawn.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#ifndef __GLIBC_PREREQ
#define __GLIBC_PREREQ(major, minor) 0
#endif

int llp_close_from(posix_spawn_file_actions_t *actions, int first) {
#if __GLIBC_PREREQ(2, 34)
    return posix_spawn_file_actions_addclosefrom_np(actions, first);
#else
    (void)actions, (void)first;
    return ENOTSUP;
#endif
}

int llp_pipe(int *ends) {
    return pipe2(ends, O_CLOEXEC) == 0 ? 0 : errno;
}
