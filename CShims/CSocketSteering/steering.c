#include "CSocketSteering.h"

#include <errno.h>

#ifdef __linux__

#include <linux/filter.h>
#include <sys/socket.h>

// Out of range: the kernel falls back to its hash.
#define BY_HASH 0xffffffffu

// Which of the packets carry a connection ID that the server chose: those with a short header (RFC 9000 section 17.3)
// and, of the versions that we know, Handshake packets. An Initial or 0-RTT packet may carry an ID that the client drew.
enum {
    VERSION_1 = 0x00000001,
    VERSION_2 = 0x6b3343cf,
    LONG_HEADER = 0x80,
    LONG_TYPE = 0x30,
    HANDSHAKE_V1 = 0x20, // RFC 9000 section 17.2.4
    HANDSHAKE_V2 = 0x30, // RFC 9369 section 3.2
    SHORT_CID = 1,
    LONG_CID = 6,
};

int lls_attach(int descriptor, const uint8_t *workers, size_t count, size_t worker_offset) {
#ifdef SO_ATTACH_REUSEPORT_CBPF
    struct sock_filter code[18 + 2 * LLS_MAX_WORKERS];
    size_t length = 0;

    if (count == 0 || count > LLS_MAX_WORKERS || worker_offset > 16)
        return ENOTSUP;
#define EMIT(...) code[length++] = (struct sock_filter)__VA_ARGS__
#define STATEMENT(operation, value) EMIT(BPF_STMT((operation), (value)))
#define JUMP(operation, value, yes, no) EMIT(BPF_JUMP((operation), (value), (yes), (no)))
    // The kernel shows the filter the datagram's payload; a load beyond its end makes the filter return 0.
    STATEMENT(BPF_LD | BPF_B | BPF_ABS, 0);                     //  0
    JUMP(BPF_JMP | BPF_JSET | BPF_K, LONG_HEADER, 2, 0);        //  1  long: 4
    STATEMENT(BPF_LD | BPF_B | BPF_ABS, SHORT_CID + worker_offset); // 2
    JUMP(BPF_JMP | BPF_JA, 11, 0, 0);                           //  3  worker: 15
    STATEMENT(BPF_ALU | BPF_AND | BPF_K, LONG_TYPE);            //  4
    STATEMENT(BPF_MISC | BPF_TAX, 0);                           //  5
    STATEMENT(BPF_LD | BPF_W | BPF_ABS, 1);                     //  6
    JUMP(BPF_JMP | BPF_JEQ | BPF_K, VERSION_1, 0, 2);           //  7  else: 10
    STATEMENT(BPF_MISC | BPF_TXA, 0);                           //  8
    JUMP(BPF_JMP | BPF_JEQ | BPF_K, HANDSHAKE_V1, 4, 3);        //  9  14, 13
    JUMP(BPF_JMP | BPF_JEQ | BPF_K, VERSION_2, 0, 2);           // 10  else: 13
    STATEMENT(BPF_MISC | BPF_TXA, 0);                           // 11
    JUMP(BPF_JMP | BPF_JEQ | BPF_K, HANDSHAKE_V2, 1, 0);        // 12  14
    STATEMENT(BPF_RET | BPF_K, BY_HASH);                        // 13
    STATEMENT(BPF_LD | BPF_B | BPF_ABS, LONG_CID + worker_offset); // 14
    for (size_t index = 0; index < count; index++) {            // 15
        JUMP(BPF_JMP | BPF_JEQ | BPF_K, workers[index], 0, 1);
        STATEMENT(BPF_RET | BPF_K, (uint32_t)index);
    }
    STATEMENT(BPF_RET | BPF_K, BY_HASH);
#undef JUMP
#undef STATEMENT
#undef EMIT

    struct sock_fprog program = {.len = (unsigned short)length, .filter = code};
    if (setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) != 0)
        return errno;
    return 0;
#else
    (void)descriptor, (void)workers, (void)count, (void)worker_offset;
    return ENOTSUP;
#endif
}

#else

int lls_attach(int descriptor, const uint8_t *workers, size_t count, size_t worker_offset) {
    (void)descriptor, (void)workers, (void)count, (void)worker_offset;
    return ENOTSUP;
}

#endif
