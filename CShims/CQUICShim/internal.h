#ifndef LLQ_INTERNAL_H
#define LLQ_INTERNAL_H

#include "CQUICShim.h"
#include "arena.h"
#include "compat.h"

#include <gnutls/gnutls.h>
#include <stdbool.h>

/// Follows the messages of one level's CRYPTO stream.
typedef struct llq_message_filter {
    uint8_t header[4];
    uint8_t header_length;
    uint32_t remaining;
    uint32_t body_offset;
    uint32_t lifetime; // of a NewSessionTicket: the body's first four bytes
    bool finished; // TLS Finished went by
} llq_message_filter;

/// What a server may send to a path before it is validated, as ngtcp2 counts it: see amplification_limit.c.
typedef struct llq_allowance {
    uint64_t received, sent; // bytes, since the path is ngtcp2's current one
    bool is_validated;
} llq_allowance;

#define LLQ_CHALLENGE_LENGTH LLQ_GUARD_RESPONSE_LENGTH
/// As many challenges as ngtcp2 remembers of a path.
#define LLQ_LIMIT_CHALLENGES 8

typedef struct llq_path_limit {
    bool is_in_force; // the current path may not be validated
    size_t challenge_count;
    uint8_t challenges[LLQ_LIMIT_CHALLENGES][LLQ_CHALLENGE_LENGTH]; // sent since the current path is one
} llq_path_limit;

/// Addresses of a client that a server remembers; ngtcp2 has at most six paths besides the current one.
#define LLQ_PATH_ALIASES 12

/// Of a path, as only ngtcp2 sees them.
typedef struct llq_path_ports {
    uint16_t local, remote;
} llq_path_ports;

/// The ports by which a server's ngtcp2 knows the client's addresses apart: see path_alias.c.
typedef struct llq_path_aliases {
    struct {
        llq_path path;
        llq_path_ports ports;
        bool shares_id; // shall share the current path's ID
        bool was_current; // ngtcp2 took this path once; when it left it, it doesn't come back to it
        uint32_t ignored; // datagrams since ngtcp2 might have followed
        uint32_t birth; // `counted` when a path first had this local port
        uint64_t used;
        llq_allowance allowance;
    } known[LLQ_PATH_ALIASES];
    size_t count;
    uint64_t turn;
    llq_path_ports first_ports;
    uint32_t counted; // numbers that were used for ports
    uint64_t initial_rtt, idle_timeout;
    bool is_lost; // no path works any more; the client may still find us from a new one
    llq_address preferred[2]; // of ours, IPv4 and IPv6
    bool preferred_unused[2];
    bool is_followed; // the datagram read has a packet whose path a server follows
    bool has_fallback; // a validation falls back to a path with an ID of its own
    bool has_twins; // two paths share an ID, as long as ...
    uint64_t shared_until; // ... validations that began with a shared ID may be under way
    bool is_validating; // a path that would fall back to `fallback`, as ngtcp2 sees it
    llq_path fallback;
    uint64_t last_id; // hash of the connection ID that the client used last
    uint32_t validations; // ended, one way or the other
    uint64_t now; // of the datagram read last
    uint64_t heard; // when the client was heard last: a packet that somebody sends again is none of its
    uint64_t current_heard;
} llq_path_aliases;

/// What a datagram's path was taken for.
typedef struct llq_path_alias {
    llq_path path;
    llq_path_ports ports;
    size_t place;
    bool is_new;
    bool is_masked; // read as if from the current path
    bool is_current; // ngtcp2's
    bool shares_id; // with the current path: the peer gave no other
    llq_path before; // ngtcp2's current path, before it read the datagram
    uint64_t id; // hash of the connection ID that it goes to
    uint32_t birth;
    uint32_t validations, counted; // before
    bool preferred_unused[2];
} llq_path_alias;

/// How many streams of one kind the peer may open: see loss_timer.c.
typedef struct llq_stream_limit {
    uint64_t surplus; // those that ngtcp2 allows the peer beyond what it was told
    uint64_t told; // those that the peer was told it may open
} llq_stream_limit;

/// What makes ngtcp2 set its loss timer for every packet: see loss_timer.c.
typedef struct llq_loss_timer {
    size_t untimed; // packets to come with an answer to PATH_CHALLENGE, at most
    llq_stream_limit bidirectional, unidirectional;
    bool is_due; // ngtcp2 has yet to write a raised limit
    bool is_packet_open; // more goes into the packet being written
    bool limit_broken; // the peer opened a stream of the surplus
} llq_loss_timer;

/// Whether packets of the size that discovery found still arrive: see packet_size.c.
#define LLQ_SIZE_RUNS 8
typedef struct llq_size_watch {
    enum { LLQ_SIZE_OPEN, LLQ_SIZE_DOUBTED, LLQ_SIZE_CLOSED } state;
    bool is_alive; // doubted: smaller packets arrive
    bool has_trial; // one larger packet, `trial`, is under way
    uint32_t lost; // packets in `sent`, and those that had no room there
    size_t size; // open: of the largest packets
    uint64_t since; // when the first of them was sent behind the last that was acknowledged
    uint64_t last;  // when the last of them was
    size_t count;
    struct { uint64_t first, last; } sent[LLQ_SIZE_RUNS]; // their numbers
    uint64_t first_small; // the first packet since the size is in doubt
    uint64_t trial, until; // open: not doubted before; doubted: when the trial has failed; closed: when the next may begin
    uint64_t retry; // nanoseconds from one to the next
} llq_size_watch;

/// What came and is not acknowledged: see ack_delay.c.
typedef struct llq_unacknowledged {
    size_t weight; // of ack-eliciting packets
    bool is_urgent;
} llq_unacknowledged;

/// A CONNECTION_CLOSE without its reason, made beside one that has one: see brief_close.c.
typedef struct llq_brief_close {
    const llq_close *close;
    uint8_t *bytes;
    size_t length; // 0: there is none
    bool has_others; // packets of other kinds are in the datagram
    size_t sealed_length, number_offset; // before its header is protected
} llq_brief_close;

struct llq_conn {
    llq_arena *arena; // where this lies
    ngtcp2_crypto_conn_ref ref;
    ngtcp2_conn *conn;
    gnutls_session_t session;
    llq_owner owner;
    bool is_server;
    bool early_attempted;
    bool key_log;
    bool tickets;
    bool ticket_master_set;
    bool pin_mismatch;
    bool qlog_overflow;
    bool use_preferred_address;
    bool forbids_migration;
    bool key_phase;
    bool is_past_handshake; // for ngtcp2, whose client is so when it has written behind the handshake's end
    int client_certificates;
    bool certificate_shown; // server: by the client, in this handshake
    uint32_t first_version, ticket_version; // server: that the client began with, and that tickets are sealed for
    uint32_t versions[LLQ_MAX_VERSIONS];
    size_t version_count;
    bool round_trip_known; // ngtcp2 0.12: a first RTT sample was taken
    int verify;
    int tls_error;
    uint32_t verify_status;
    uint32_t ticket_lifetime;
    uint8_t *pins;
    size_t pin_count;
    char *server_name;
    uint8_t *client_hello; // server: until it is complete
    size_t client_hello_length;
    llq_brief_close *brief; // while a close with a reason is written
    llq_message_filter filters[3];
    llq_frame_guard guard;
    llq_path_aliases aliases; // server
    /// Acknowledged bytes of one stream that are yet to be told: a read of many datagrams tells them once.
    int64_t acked_stream;
    uint64_t acked_count;
    bool searches_ends, tells_acknowledged;
    size_t own_cid_length; // server
    llq_loss_timer timer;
    llq_path_limit limit; // server
    llq_size_watch size;
    size_t ack_threshold;
    llq_unacknowledged unacknowledged;
    uint64_t next_packet; // of 0-RTT and 1-RTT packets
    uint64_t next_received; // one more than the largest number of the peer's
    uint64_t packets_authenticated;
    uint64_t key_updates;
    uint64_t packets_lost;
    uint8_t exporter[48]; // the exporter master secret
    size_t exporter_length;
    int protection;
    size_t mb_key_length; // of 1-RTT keys that intel-ipsec-mb has; 0: GnuTLS has them
};

/// Around every call into ngtcp2: the packet protection callbacks get no connection. One value per thread.
llq_conn *llq_enter(llq_conn *conn);
void llq_leave(llq_conn *previous);
llq_conn *llq_current(void);

void llq_emit(llq_conn *conn, const llq_event *event);
/// Tells of the acknowledged bytes that were gathered. Every other event does so first: the order stays.
void llq_emit_acked(llq_conn *conn);
void llq_emit_simple(llq_conn *conn, int kind);

/// Returns 0, or an alert: the data holds a message that has no place there.
int llq_filter_messages(llq_conn *conn, ngtcp2_encryption_level level, const uint8_t *data, size_t length);

int llq_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
                const uint8_t *plaintext, size_t plaintextlen, const uint8_t *nonce, size_t noncelen,
                const uint8_t *aad, size_t aadlen);
int llq_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
                const uint8_t *ciphertext, size_t ciphertextlen, const uint8_t *nonce, size_t noncelen,
                const uint8_t *aad, size_t aadlen);
int llq_hp_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp, const ngtcp2_crypto_cipher_ctx *hp_ctx,
                const uint8_t *sample);
void llq_delete_aead(ngtcp2_conn *conn, ngtcp2_crypto_aead_ctx *aead_ctx, void *user_data);
void llq_delete_mask(ngtcp2_conn *conn, ngtcp2_crypto_cipher_ctx *cipher_ctx, void *user_data);
int llq_on_update_key(ngtcp2_conn *conn, uint8_t *rx_secret, uint8_t *tx_secret, ngtcp2_crypto_aead_ctx *rx_aead,
                      uint8_t *rx_iv, ngtcp2_crypto_aead_ctx *tx_aead, uint8_t *tx_iv, const uint8_t *old_rx_secret,
                      const uint8_t *old_tx_secret, size_t length, void *user_data);

/// Before a call to ngtcp2 that may begin a packet.
void llq_timer_begin(llq_conn *conn);
/// After it, with its result.
void llq_timer_end(llq_conn *conn, ngtcp2_ssize result);
/// So many packets with answers to PATH_CHALLENGE are to come.
void llq_timer_expect(llq_conn *conn, size_t count);
/// The packet that begins next gets a frame that sets the timer.
void llq_timer_request(llq_conn *conn);
/// ngtcp2 writes this limit for the peer's streams.
void llq_timer_note_limit(llq_conn *conn, bool bidirectional, uint64_t limit);
/// ngtcp2 lets the peer open another stream in place of this one, of which the peer is not to know.
void llq_timer_withhold(llq_conn *conn, int64_t stream_id);
/// Takes what the peer is not to know from a packet about to be protected.
void llq_timer_conceal(const llq_conn *conn, uint8_t *plaintext, size_t length);

/// Searches a packet that is about to be protected: see stream_ends.c.
void llq_ends_search(llq_conn *conn, uint8_t *plaintext, size_t length);
/// The peer has these packets, which is to be told.
void llq_ends_acknowledged(llq_conn *conn, uint64_t first, uint64_t last);
/// Whether the peer was told that it may open this stream.
bool llq_timer_admits(llq_conn *conn, int64_t stream_id);

/// ngtcp2's current path is another one.
void llq_limit_begin(llq_conn *conn);
/// ngtcp2's current path is validated.
void llq_limit_end(llq_conn *conn);
/// ngtcp2 sends PATH_CHALLENGE, or gets PATH_RESPONSE, with this data.
void llq_limit_note_challenge(llq_conn *conn, const uint8_t *data);
void llq_limit_note_response(llq_conn *conn, const uint8_t *data);
/// A datagram came on ngtcp2's current path.
void llq_limit_note_received(llq_conn *conn, size_t length);
/// How much of `capacity` ngtcp2 may have for its next packet.
size_t llq_limit_room(llq_conn *conn, size_t capacity);
/// ngtcp2 wrote a packet, or nothing.
void llq_limit_note_sent(llq_conn *conn, const ngtcp2_path *path, ngtcp2_ssize length);

/// ngtcp2 wrote a packet, or nothing.
void llq_acks_note_sent(llq_conn *conn, ngtcp2_ssize length);
void llq_size_note_sent(llq_conn *conn, const ngtcp2_path *path, ngtcp2_ssize length, uint64_t now);
/// An authentic packet came. One that isn't ordinary is answered at once: of the handshake, not the one that follows the last, marked
/// by a full router, or with frames that want more than an acknowledgement.
void llq_acks_note_received(llq_conn *conn, bool is_ordinary, size_t length);
/// Whether it matters which packets the peer acknowledges; and that it does these.
bool llq_size_is_watched(const llq_conn *conn);
void llq_size_note_acknowledged(llq_conn *conn, uint64_t first, uint64_t last);
/// When llq_conn_watch_size is to be called at the latest.
uint64_t llq_size_deadline(const llq_conn *conn);
/// How much of `capacity` ngtcp2 may have for its next packet.
size_t llq_size_room(const llq_conn *conn, size_t capacity);

void llq_alias_init(llq_path_aliases *aliases, const llq_path *first, const llq_settings *settings);
/// Before ngtcp2 reads a datagram: puts the alias into `path`. False if the datagram must be dropped.
bool llq_alias_enter(llq_conn *conn, llq_path *path, llq_path_alias *alias, const uint8_t *packet, size_t length,
                     uint64_t now);
/// Afterwards. `authenticated`: whether it held a packet that only the peer can have made.
void llq_alias_leave(llq_conn *conn, llq_path_alias *alias, bool authenticated);
/// ngtcp2 validated a path, or gave it up because nothing answered.
void llq_alias_note_validation(llq_conn *conn, bool succeeded);
/// Of ngtcp2's current path; NULL if nothing is known of it.
llq_allowance *llq_alias_allowance(llq_conn *conn);
/// Whether a datagram's path is ngtcp2's current one by now.
bool llq_alias_is_current(const llq_conn *conn, const llq_path_alias *alias);
/// When a connection whose paths are all lost is over.
uint64_t llq_alias_lost_until(const llq_conn *conn);
/// Puts the real local address into a path that ngtcp2 named.
void llq_alias_restore(const llq_conn *conn, llq_path *path);

/// Whether a qlog record has room for a server's transport parameters.
bool llq_qlog_fits(const ngtcp2_transport_params *params, size_t initial_scid_length);
/// The same for those in a message EncryptedExtensions, without its header.
bool llq_qlog_takes(const uint8_t *message, size_t length);

int llq_tls_start(llq_conn *conn, const llq_tls *tls);
/// Takes handshake bytes of the peer; an ngtcp2 result.
int llq_tls_receive(llq_conn *conn, ngtcp2_encryption_level level, uint64_t offset, const uint8_t *data,
                    size_t length);

typedef struct llq_sockaddr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
    socklen_t length;
} llq_sockaddr;

void llq_address_to_sockaddr(llq_sockaddr *destination, const llq_address *source);
void llq_address_from_sockaddr(llq_address *destination, const struct sockaddr *source);

typedef struct llq_path_buffer {
    ngtcp2_path path;
    llq_sockaddr local, remote;
} llq_path_buffer;

void llq_path_to_ngtcp2(llq_path_buffer *destination, const llq_path *source);
void llq_path_from_ngtcp2(llq_path *destination, const ngtcp2_path *source);
void llq_cid_to_ngtcp2(ngtcp2_cid *destination, const llq_cid *source);
void llq_cid_from_ngtcp2(llq_cid *destination, const ngtcp2_cid *source);

#endif
