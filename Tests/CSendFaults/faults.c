#define _GNU_SOURCE
#include "CSendFaults.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
#define LARGEST_EACH 16
static struct {
    uint16_t local_port, remote_port;
    int error, count, hits;
    /// Instead of `error`, the first time; 0: none.
    int first_error;
    int runs_only;
    /// Smaller messages pass.
    size_t least;
    /// Instead of `error`, one for each call; 0: it passes.
    bool has_each;
    int each[LARGEST_EACH], calls;
} fault;

static void set(uint16_t local_port, uint16_t remote_port, int first_error, int error, int count, int runs_only) {
    pthread_mutex_lock(&lock);
    fault.local_port = local_port;
    fault.remote_port = remote_port;
    fault.first_error = first_error;
    fault.error = error;
    fault.count = count;
    fault.hits = 0;
    fault.runs_only = runs_only;
    fault.least = 0;
    fault.has_each = false;
    pthread_mutex_unlock(&lock);
}

void send_faults_set(uint16_t local_port, uint16_t remote_port, int error, int count) {
    set(local_port, remote_port, 0, error, count, 0);
}

void send_faults_set_runs(uint16_t local_port, int error, int count) { set(local_port, 0, 0, error, count, 1); }

void send_faults_set_large(uint16_t local_port, size_t least, int error, int count) {
    pthread_mutex_lock(&lock);
    memset(&fault, 0, sizeof fault);
    fault.local_port = local_port;
    fault.least = least;
    fault.error = error;
    fault.count = count;
    pthread_mutex_unlock(&lock);
}

void send_faults_set_behind_full(uint16_t local_port, uint16_t remote_port, int error) {
    set(local_port, remote_port, EAGAIN, error, 2, 0);
}

void send_faults_set_each(uint16_t local_port, const int *errors, int count) {
    pthread_mutex_lock(&lock);
    memset(&fault, 0, sizeof fault);
    fault.local_port = local_port;
    fault.has_each = true;
    fault.count = count < LARGEST_EACH ? count : LARGEST_EACH;
    for (int i = 0; i < fault.count; i++) fault.each[i] = errors[i];
    pthread_mutex_unlock(&lock);
}

static int is_run(const struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, c))
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_SEGMENT) return 1;
    return 0;
}

static size_t length_of(const struct msghdr *message) {
    size_t length = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++) length += message->msg_iov[i].iov_len;
    return length;
}

int send_faults_clear(void) {
    pthread_mutex_lock(&lock);
    int hits = fault.hits;
    fault.count = 0;
    pthread_mutex_unlock(&lock);
    return hits;
}

static uint16_t port_of(const struct sockaddr *address) {
    if (!address) return 0;
    if (address->sa_family == AF_INET) return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
    if (address->sa_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
    return 0;
}

/// The error that a call is to fail with, or 0.
static int error_for(int descriptor, const struct msghdr *message) {
    int error = 0;
    pthread_mutex_lock(&lock);
    if (fault.count > 0) {
        struct sockaddr_storage local;
        socklen_t length = sizeof local;
        int is_inet = getsockname(descriptor, (struct sockaddr *)&local, &length) == 0 &&
                      (local.ss_family == AF_INET || local.ss_family == AF_INET6);
        if (is_inet && (fault.local_port == 0 || port_of((struct sockaddr *)&local) == fault.local_port) &&
            (fault.remote_port == 0 || port_of(message->msg_name) == fault.remote_port) &&
            (!fault.runs_only || is_run(message)) && length_of(message) >= fault.least) {
            if (fault.has_each) error = fault.each[fault.calls++];
            else error = fault.first_error && fault.hits == 0 ? fault.first_error : fault.error;
            fault.count--;
            if (error) fault.hits++;
        }
    }
    pthread_mutex_unlock(&lock);
    return error;
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
    int error = error_for(descriptor, message);
    if (error) {
        errno = error;
        return -1;
    }
    return syscall(SYS_sendmsg, descriptor, message, flags);
}

int sendmmsg(int descriptor, struct mmsghdr *messages, unsigned int count, int flags) {
    // As the system does: what was sent before the failing message counts.
    for (unsigned int i = 0; i < count; i++) {
        int error = error_for(descriptor, &messages[i].msg_hdr);
        if (!error) continue;
        if (i > 0) return (int)syscall(SYS_sendmmsg, descriptor, messages, i, flags);
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_sendmmsg, descriptor, messages, count, flags);
}
