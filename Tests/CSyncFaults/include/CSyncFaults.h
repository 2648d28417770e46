/// Lets the syncs of a file fail on purpose. The program that links this has it in the place of the C library's `fsync` and
/// `fdatasync`, which pass everything on but for what is asked for here. On other systems than Linux it does nothing.
#ifndef CSYNCFAULTS_H
#define CSYNCFAULTS_H

/// The next `count` syncs of the file at `path` fail with `error`. At most one such fault is set at a time.
/// Returns whether there is such a file.
int sync_faults_set(const char *path, int error, int count);

/// Ends the fault. Returns how many syncs it hit.
int sync_faults_clear(void);

#endif
