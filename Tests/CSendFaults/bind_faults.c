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
static struct in_addr failing;
static int failure;

void bind_faults_set(const char *host, int error) {
    pthread_mutex_lock(&lock);
    failure = inet_pton(AF_INET, host, &failing) == 1 ? error : 0;
    pthread_mutex_unlock(&lock);
}

/// The error that a call is to fail with, or 0.
static int error_for(const struct sockaddr *address) {
    if (!address || address->sa_family != AF_INET) return 0;
    pthread_mutex_lock(&lock);
    int error =
        ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr == failing.s_addr ? failure : 0;
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
