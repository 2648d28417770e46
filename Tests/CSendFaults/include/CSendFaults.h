/// Lets the system's send calls, and `bind`, fail on purpose. The program that links this has it in the place of the C
/// library's `sendmsg`, `sendmmsg` and `bind`, which pass everything on but for what is asked for here.
#ifndef CSENDFAULTS_H
#define CSENDFAULTS_H

#include <stddef.h>
#include <stdint.h>

/// The next `count` calls that send from `local_port`, or to `remote_port`, fail with `error`; 0 as a port: any. At most
/// one such fault is set at a time.
void send_faults_set(uint16_t local_port, uint16_t remote_port, int error, int count);

/// The same for runs only, which the kernel would make datagrams of (UDP_SEGMENT).
void send_faults_set_runs(uint16_t local_port, int error, int count);

/// The next `count` calls that send from `local_port` messages of `least` bytes or more fail with `error`; smaller ones pass.
void send_faults_set_large(uint16_t local_port, size_t least, int error, int count);

/// The next call that sends from `local_port`, or to `remote_port`, finds the socket's buffer full; the one after it fails
/// with `error`.
void send_faults_set_behind_full(uint16_t local_port, uint16_t remote_port, int error);

/// The next `count` calls, 16 at most, that send from `local_port` fail with these errors, one after the other; 0: it passes.
void send_faults_set_each(uint16_t local_port, const int *errors, int count);

/// Ends the fault. Returns how many calls it hit.
int send_faults_clear(void);

/// The next `count` sockets that are to be bound to an IPv4 host in digits are not: `bind` fails with `error`. Each test has a
/// host of its own, of 16 at most.
void bind_faults_set(const char *host, int error, int count);

#endif
