// Without _GNU_SOURCE, which gives `bind` a parameter of another type.
#include "CSendFaults.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
#define HOSTS 16
static struct {
    in_addr_t host;
    int error, left;
} faults[HOSTS];

void bind_faults_set(const char *host, int error, int count) {
    struct in_addr address;
    if (inet_pton(AF_INET, host, &address) != 1) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < HOSTS; i++) {
        if (faults[i].host != 0 && faults[i].host != address.s_addr) continue;
        faults[i].host = address.s_addr;
        faults[i].error = error;
        faults[i].left = count;
        break;
    }
    pthread_mutex_unlock(&lock);
}

/// The error that a call is to fail with, or 0.
static int error_for(const struct sockaddr *address) {
    if (!address || address->sa_family != AF_INET) return 0;
    in_addr_t host = ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr;
    int error = 0;
    if (host == 0) return 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < HOSTS; i++) {
        if (faults[i].host != host || faults[i].left <= 0) continue;
        error = faults[i].error;
        faults[i].left--;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length) {
    int error = error_for(address);
    if (error) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_bind, descriptor, address, length);
}
