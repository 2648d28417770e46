#define _GNU_SOURCE
#include "CSyncFaults.h"

#ifdef __linux__

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    dev_t device;
    ino_t file;
    int error, count, hits;
} fault;

int sync_faults_set(const char *path, int error, int count) {
    struct stat status;
    if (stat(path, &status) != 0) return 0;
    pthread_mutex_lock(&lock);
    fault.device = status.st_dev;
    fault.file = status.st_ino;
    fault.error = error;
    fault.count = count;
    fault.hits = 0;
    pthread_mutex_unlock(&lock);
    return 1;
}

int sync_faults_clear(void) {
    pthread_mutex_lock(&lock);
    int hits = fault.hits;
    fault.count = 0;
    pthread_mutex_unlock(&lock);
    return hits;
}

/// The error that a sync is to fail with, or 0.
static int error_for(int descriptor) {
    int error = 0;
    pthread_mutex_lock(&lock);
    struct stat status;
    if (fault.count > 0 && fstat(descriptor, &status) == 0 && status.st_dev == fault.device &&
        status.st_ino == fault.file) {
        error = fault.error;
        fault.count--;
        fault.hits++;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

static int perform(long call, int descriptor) {
    int error = error_for(descriptor);
    if (error) {
        errno = error;
        return -1;
    }
    return (int)syscall(call, descriptor);
}

int fsync(int descriptor) { return perform(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return perform(SYS_fdatasync, descriptor); }

#else

int sync_faults_set(const char *path, int error, int count) { return 0; }
int sync_faults_clear(void) { return 0; }

#endif
