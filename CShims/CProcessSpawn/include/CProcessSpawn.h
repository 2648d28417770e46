/// What the C library has for starting processes beyond POSIX, which Swift does not see.
#ifndef LLP_CPROCESSSPAWN_H
#define LLP_CPROCESSSPAWN_H

#include <spawn.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Has the process that is started with `actions` close every descriptor from `first` on, whichever there are by then.
/// Returns 0, or an errno; ENOTSUP where the C library can't.
int llp_close_from(posix_spawn_file_actions_t *actions, int first);

/// Makes a pipe, both ends of which are closed in every process that is started, from its first moment on: `ends[0]` is
/// read from, `ends[1]` written to. Returns 0, or an errno.
int llp_pipe(int *ends);

#ifdef __cplusplus
}
#endif

#endif
