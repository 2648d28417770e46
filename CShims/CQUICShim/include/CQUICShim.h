/// What QUICEngine needs of ngtcp2 and its GnuTLS helper and Swift can't call: function-like macros, versioned structs,
/// callback tables; and every difference between ngtcp2 0.12 and 1.x. Nothing here decides anything: what happens is
/// reported through `llq_owner`, whose functions only take notes.
#ifndef LLQ_CQUICSHIM_H
#define LLQ_CQUICSHIM_H

#include "llq_frame_guard.h"
#include "llq_packets.h"
#include "llq_protection.h"
#include "llq_tls.h"
#include "llq_types.h"

#ifdef __cplusplus
extern "C" {
#endif

// Results. Other negative values are ngtcp2's own errors, to be answered with `llq_conn_write_close`.

enum {
    LLQ_OK = 0,
    LLQ_DRAINING = 1,       // the peer closed
    LLQ_DROP = 2,           // forget the connection without a word
    LLQ_RETRY = 3,          // a Retry is the right answer
    LLQ_IDLE = 4,           // the idle timeout passed
    LLQ_HANDSHAKE_TIMEOUT = 5,
    LLQ_CLOSING = 6,
    LLQ_TOO_MUCH = 7,       // ngtcp2 holds more of what it read than is allowed
    LLQ_WRITE_MORE = -10001,     // the packet has room for more
    LLQ_STREAM_BLOCKED = -10002, // by the peer's flow control
    LLQ_STREAM_SHUT = -10003,    // finished, reset or unknown
    LLQ_NOT_NOW = -10004,        // a datagram that doesn't fit or isn't allowed, a stream without credit
};

// Events.

enum llq_event_kind {
    LLQ_EVENT_HANDSHAKE_COMPLETED,
    LLQ_EVENT_HANDSHAKE_CONFIRMED,
    LLQ_EVENT_EARLY_DATA_REJECTED,
    LLQ_EVENT_STREAM_OPENED,
    LLQ_EVENT_STREAM_DATA,        // stream_id, flags, data
    LLQ_EVENT_STREAM_ACKED,       // stream_id, value: bytes more
    LLQ_EVENT_END_ACKED,          // stream_id
    LLQ_EVENT_END_JOINED,         // stream_id, value: packet number, of a frame with the end and bytes before it
    LLQ_EVENT_PACKETS_ACKED,      // value, last: packet numbers
    LLQ_EVENT_STREAM_RESET,       // stream_id, value: code, flags
    LLQ_EVENT_STOP_SENDING,       // stream_id, value: code
    LLQ_EVENT_STREAM_CLOSED,      // stream_id
    LLQ_EVENT_MAX_STREAMS_BIDI,
    LLQ_EVENT_MAX_STREAMS_UNI,
    LLQ_EVENT_MAX_STREAM_DATA,    // stream_id
    LLQ_EVENT_DATAGRAM,           // data, flags
    LLQ_EVENT_DATAGRAM_ACKED,     // value: id
    LLQ_EVENT_DATAGRAM_LOST,      // value: id
    LLQ_EVENT_NEW_TOKEN,          // data
    LLQ_EVENT_PATH_VALIDATED,     // path
    LLQ_EVENT_PATH_FAILED,        // path
    LLQ_EVENT_CID_ADDED,          // data
    LLQ_EVENT_CID_REMOVED,        // data
    LLQ_EVENT_PEER_CID_ACTIVE,    // data: its reset token
    LLQ_EVENT_PEER_CID_INACTIVE,  // data: its reset token
    LLQ_EVENT_STATELESS_RESET,
    LLQ_EVENT_VERSION_NEGOTIATION, // data: the server's versions, each a uint32_t
    LLQ_EVENT_TICKET,             // a NewSessionTicket came in
    LLQ_EVENT_CONTAINED_FRAME,    // withheld from ngtcp2, which would abort on it
    LLQ_EVENT_CONTAINED_MESSAGE,  // the same, a handshake message
    LLQ_EVENT_CHALLENGED,         // the peer asks whether the path is good (PATH_CHALLENGE)
};

enum {
    LLQ_FLAG_FIN = 1,
    LLQ_FLAG_EARLY = 2,
    /// ngtcp2 0.12 makes no stream of one whose first frame is RESET_STREAM: no close follows, our side can't be reset,
    /// and the peer has its stream credit back already.
    LLQ_FLAG_STILLBORN = 4,
};

typedef struct llq_event {
    int32_t kind;
    uint32_t flags;
    int64_t stream_id;
    uint64_t value, last;
    const uint8_t *data;
    size_t length;
    llq_path path;
} llq_event;

/// What a client's first message says that its ticket depends on.
typedef struct llq_ticket_offer {
    /// The ticket, which begins with the name (16 bytes) of the key that sealed it; NULL: it offers none.
    const uint8_t *ticket;
    size_t ticket_length;
    /// Its application protocols, each name after its length.
    const uint8_t *protocols;
    size_t protocols_length;
    /// The QUIC version that the client began with and its ticket must be of; and the one that the connection will have.
    uint32_t first, expected;
} llq_ticket_offer;

/// Who owns a connection. None of these may call back into the shim.
typedef struct llq_owner {
    void *context;
    void (*event)(void *context, const llq_event *event);
    void (*random)(void *context, uint8_t *destination, size_t length);
    /// Fills a new connection ID of `length` bytes and its stateless reset token.
    void (*new_cid)(void *context, uint8_t *cid, size_t length, uint8_t *token);
    /// Server: the ticket master (64 bytes) for a client that makes this offer; returns 0 if there is one. Tickets are sealed
    /// and opened with one master; `version` is set to the QUIC version that it is for: the offer's `first` or `expected`.
    int (*ticket_master)(void *context, const llq_ticket_offer *offer, uint32_t *version, uint8_t *master);
    /// Server with `anti_replay`: this ticket was sealed and is about to leave.
    void (*ticket_sealed)(void *context, const uint8_t *ticket, size_t length);
    /// One line in the format of SSLKEYLOGFILE.
    void (*key_log)(void *context, const char *line);
    /// Server: the certificate credentials (GnuTLS's, alive as long as the connection) for the name a client asks for;
    /// NULL for those of `llq_tls`. NULL: one certificate for all names.
    void *(*credentials)(void *context, const char *name, size_t length);
    /// Part of a qlog trace; NULL: none is written. Called with `last` when the connection is freed.
    void (*qlog)(void *context, const uint8_t *data, size_t length, int last);
    /// Test hook: the plaintext of a packet about to be protected; may be changed in place. Usually NULL.
    void (*rewrite)(void *context, uint8_t *plaintext, size_t length, const uint8_t *header, size_t header_length);
} llq_owner;

// Connections.

enum { LLQ_CC_CUBIC = 0, LLQ_CC_BBR = 1 };

/// Where a server wants its clients to go (RFC 9000 section 9.6).
typedef struct llq_preferred_address {
    llq_address ipv4, ipv6;
    int has_ipv4, has_ipv6;
    llq_cid cid;
    uint8_t reset_token[LLQ_RESET_TOKEN_LENGTH];
} llq_preferred_address;

typedef struct llq_settings {
    uint64_t now;
    uint64_t initial_rtt;
    uint64_t handshake_timeout;
    uint64_t max_idle_timeout;
    uint64_t max_ack_delay;
    uint64_t connection_window;
    uint64_t stream_window;
    uint64_t max_streams_bidi;
    uint64_t max_streams_uni;
    uint64_t max_datagram_frame_size;
    size_t max_udp_payload;
    int congestion_control;
    int discover_mtu;
    int packet_protection;
    const uint8_t *token;
    size_t token_length;
    size_t ack_threshold;
    /// QUIC versions, the preferred first, at most LLQ_MAX_VERSIONS; all available.
    const uint32_t *versions;
    size_t version_count;
    uint32_t first_version; // client: of the first packet; one of them, or a reserved one
    /// Client: the version tried before a Version Negotiation packet led to this attempt; 0: none.
    uint32_t original_version;
    int forbid_migration;
    const llq_preferred_address *preferred_address; // server; NULL: none
    int use_preferred_address;                      // client
} llq_settings;

llq_conn *llq_conn_client_new(const llq_owner *owner, const llq_cid *dcid, const llq_cid *scid, const llq_path *path,
                              const llq_settings *settings, const llq_tls *tls, int *error);

/// `original_dcid` is what the client chose first; `retry_scid` is NULL unless it came back from a Retry.
llq_conn *llq_conn_server_new(const llq_owner *owner, const llq_cid *client_scid, const llq_cid *scid,
                              const llq_cid *original_dcid, const llq_cid *retry_scid, int token_from_retry,
                              uint32_t version, const llq_path *path, const uint8_t *reset_token,
                              const llq_settings *settings, const llq_tls *tls, int *error);

void llq_conn_free(llq_conn *conn);

/// Whether a client connection may send 0-RTT: its ticket allows it.
int llq_conn_early_data_possible(const llq_conn *conn);

/// Takes datagrams that lie one behind the other, all `segment` long but the last; stops at the first that ends the
/// connection. `allowed`: what `llq_conn_read_memory` may come to.
int llq_conn_read(llq_conn *conn, const llq_path *path, uint8_t ecn, const uint8_t *packets, size_t length,
                  size_t segment, size_t allowed, uint64_t now);
/// Bytes that ngtcp2 took for what it read and hasn't given back: stream data behind a gap, and records of streams.
size_t llq_conn_read_memory(const llq_conn *conn);

/// Writes a packet with stream data, or whatever waits when `stream_id` is -1. Returns its length, 0 when nothing can be
/// sent now, or a result. `accepted` is -1 when no stream data was taken.
ssize_t llq_conn_write_stream(llq_conn *conn, llq_path *path, uint8_t *ecn, uint8_t *destination, size_t capacity,
                              ssize_t *accepted, uint32_t more, uint32_t fin, int64_t stream_id, const llq_vec *data,
                              size_t count, uint64_t now);

/// Packets that leave as one message: same path, same ECN mark, `segment` bytes each but the last, which may be shorter.
typedef struct llq_run {
    size_t length;
    size_t segment;
    size_t segments;
    size_t accepted; // stream bytes
    llq_path path;
    uint8_t ecn;
    /// Bytes behind the run that are a packet which doesn't belong to it; 0: none.
    size_t extra;
    llq_path extra_path;
    uint8_t extra_ecn;
    ssize_t result; // what ended the run, as of `llq_conn_write_stream`; LLQ_WRITE_MORE: more may follow
} llq_run;

/// Writes packets full of one stream's data, as long as `bytes`, the sum of the vectors, fill them. Changes the vectors.
void llq_conn_write_run(llq_conn *conn, llq_run *run, uint8_t *destination, size_t capacity, size_t segments,
                        int64_t stream_id, llq_vec *data, size_t count, size_t bytes, uint64_t now);

/// The same with a datagram (RFC 9221). ngtcp2 tells of its acknowledgement or loss by `id`, but may keep a loss to itself:
/// see `llq_conn_next_packet`.
ssize_t llq_conn_write_datagram(llq_conn *conn, llq_path *path, uint8_t *ecn, uint8_t *destination, size_t capacity,
                                int *accepted, uint32_t more, uint64_t id, const uint8_t *data, size_t length,
                                uint64_t now);

enum { LLQ_CLOSE_TRANSPORT = 0, LLQ_CLOSE_APPLICATION = 1, LLQ_CLOSE_SILENT = 2 };

typedef struct llq_close {
    int kind;
    uint64_t code;
    const uint8_t *reason;
    size_t reason_length;
} llq_close;

enum { LLQ_BRIEF_CLOSE_LENGTH = 64 };

/// Writes CONNECTION_CLOSE; 0 if none can be written. `brief` has room for LLQ_BRIEF_CLOSE_LENGTH bytes and gets the same without its
/// reason, for whoever may not be sent so much; its length is 0 where there is no reason to leave out, and where the peer may have no
/// 1-RTT keys yet.
ssize_t llq_conn_write_close(llq_conn *conn, llq_path *path, uint8_t *ecn, uint8_t *destination, size_t capacity,
                             uint8_t *brief, size_t *brief_length, const llq_close *close, uint64_t now);

/// The close that answers an error of `llq_conn_read`, `llq_conn_write_stream` or `llq_conn_handle_expiry`.
llq_close llq_conn_close_for_error(llq_conn *conn, int error);

/// What the peer said when it closed; the reason lives as long as the connection.
llq_close llq_conn_peer_close(llq_conn *conn);

/// The number of the packet that is written next, or is not full yet, in the space of 0-RTT and 1-RTT packets.
uint64_t llq_conn_next_packet(const llq_conn *conn);
/// One more than the largest packet number in that space that the peer acknowledged; 0: none yet.
uint64_t llq_conn_acked_to(const llq_conn *conn);
/// Whether LLQ_EVENT_END_JOINED is told of packets written from now on.
void llq_conn_search_ends(llq_conn *conn, int on);
/// Whether LLQ_EVENT_PACKETS_ACKED is told of packets read from now on.
void llq_conn_tell_acknowledged(llq_conn *conn, int on);
/// How long after it was sent a packet counts as lost if a later one was acknowledged (RFC 9002 section 6.1.2).
uint64_t llq_conn_loss_delay(llq_conn *conn);
/// The record that the last line of `written` lacks the beginning of, as long as the return value; 0 if there is none.
/// Exposed for its tests.
size_t llq_qlog_complete(const uint8_t *written, size_t length, uint8_t *record, size_t capacity);
/// What a DATAGRAM frame has to leave to others in its packet.
size_t llq_datagram_overhead(void);
/// Has the next packet carry something that the peer must acknowledge, whatever else there is to send.
void llq_conn_elicit(llq_conn *conn);
/// Whether something that the peer must acknowledge was asked for, by that or to set the loss timer, and is not written yet.
int llq_conn_owes_packet(const llq_conn *conn);

/// Whether what came is to be acknowledged, but not at once: with what is written next, or when that would be too late.
int llq_conn_acks_wait(const llq_conn *conn);
/// How long an acknowledgement may wait for something to go with: an eighth of a round trip, but 5 ms at least.
uint64_t llq_conn_ack_delay(llq_conn *conn);

uint64_t llq_conn_expiry(llq_conn *conn);
int llq_conn_handle_expiry(llq_conn *conn, uint64_t now);
void llq_conn_update_tx_time(llq_conn *conn, uint64_t now);
uint64_t llq_conn_pto(llq_conn *conn);
/// To be called before packets are written: finds out whether the path takes less than before.
void llq_conn_watch_size(llq_conn *conn, uint64_t now);
/// The largest packet that may be written next, probes of path MTU discovery among them; and the largest that the path is
/// known to take.
size_t llq_conn_max_payload(llq_conn *conn);
size_t llq_conn_path_max_payload(llq_conn *conn);
size_t llq_conn_send_quantum(llq_conn *conn);
uint64_t llq_conn_cwnd_left(llq_conn *conn);
/// Bytes the peer still allows on all streams together.
uint64_t llq_conn_data_left(llq_conn *conn);
int llq_conn_handshake_completed(llq_conn *conn);
void llq_conn_set_keep_alive(llq_conn *conn, uint64_t interval);

int llq_conn_open_stream(llq_conn *conn, int bidirectional, int64_t *stream_id);
int llq_conn_reset_stream(llq_conn *conn, int64_t stream_id, uint64_t code);
int llq_conn_stop_sending(llq_conn *conn, int64_t stream_id, uint64_t code);
void llq_conn_extend_stream(llq_conn *conn, int64_t stream_id, uint64_t count);
void llq_conn_extend_connection(llq_conn *conn, uint64_t count);
void llq_conn_extend_max_streams(llq_conn *conn, int bidirectional, size_t count);
uint64_t llq_conn_streams_left(llq_conn *conn, int bidirectional);
/// Whether ngtcp2 has a record of this stream.
int llq_conn_has_stream(llq_conn *conn, int64_t stream_id);

/// Largest DATAGRAM frame the peer accepts, 0 if none.
uint64_t llq_conn_peer_datagram_limit(llq_conn *conn);
int llq_conn_peer_forbids_migration(llq_conn *conn);

int llq_conn_migrate(llq_conn *conn, const llq_path *path, uint64_t now);
int llq_conn_update_key(llq_conn *conn, uint64_t now);
llq_path llq_conn_path(llq_conn *conn);
int llq_conn_submit_token(llq_conn *conn, const uint8_t *token, size_t length);

typedef struct llq_stats {
    uint64_t latest_rtt, min_rtt, smoothed_rtt, rtt_variation, congestion_window, bytes_in_flight;
} llq_stats;
void llq_conn_stats(llq_conn *conn, llq_stats *stats);
/// Packets under keys that only the peer has: all but Initial. A replayed packet counts.
uint64_t llq_conn_packets_authenticated(const llq_conn *conn);
/// Times that our sending keys changed.
uint64_t llq_conn_key_updates(const llq_conn *conn);
/// Packets declared lost; counted only while a qlog trace is written.
uint64_t llq_conn_packets_lost(const llq_conn *conn);
uint32_t llq_conn_version(llq_conn *conn);
int llq_version_available(uint32_t version);

/// Reset tokens of the peer's connection IDs in use, `LLQ_RESET_TOKEN_LENGTH` bytes each; returns how many.
size_t llq_conn_peer_reset_tokens(llq_conn *conn, uint8_t *tokens, size_t capacity);

const char *llq_error_name(int error);
/// The version of ngtcp2 at run time, for instance "0.12.1".
const char *llq_ngtcp2_version(void);
/// Whether ngtcp2 aborts on frames that the guard below withholds from it.
int llq_contains_frames(void);
/// Whether ngtcp2 tells nothing more of a peer's unidirectional stream behind `llq_conn_stop_sending`, its end neither.
int llq_keeps_stopped_streams(void);
/// Whether ngtcp2 gives another connection ID for each that the peer retires, however many of its frames for that aren't
/// acknowledged yet.
int llq_gives_ids_unacknowledged(void);

#ifdef __cplusplus
}
#endif

#endif
