// ngtcp2, 0.12 and 1.x alike, goes on with the same destination connection ID when a client's packets come from a new
// address under an ID that it used before, as after a NAT's rebinding. Until that path and the one before are validated,
// two records name one sequence number. When the client moves on to a new ID meanwhile, ngtcp2 retires that number
// and goes on counting it: the next NEW_CONNECTION_ID of an honest client is one too many (CONNECTION_ID_LIMIT_ERROR),
// and version 0.12 aborts the process when it retires the number again before the first frame was acknowledged, which
// a client alone decides.
//
// A server of ngtcp2 takes a new ID for a path whose local address is new (RFC 9000 section 9.5). So each address of
// the client gets a local port of its own that only ngtcp2 sees: no two paths share an ID then. It gets a remote port of
// its own, too, so that no path is the same as one before.
//
// A client that comes back to an address that it left gets new ports for it too: version 0.12 asserts that no path MTU
// discovery runs when a client returns to the path that a validation would fall back to, and one may run (its test for a
// small probe looks at the wrong flags).
//
// The same ports keep a connection alive that version 0.12 would give up (NO_VIABLE_PATH): when a path's first probe was
// small, as after a rebinding, and no full-sized one is answered within seconds, because the client is in a tunnel, say.
// Nothing is written then until the client is heard again, whose address is a new path by its new ports.
//
// A client that gave no ID to spare, or whose spare ones are used up, as by a NAT that rebinds many times within a round
// trip, can't be followed that way. Its new address then shares the current path's local port, and with it the ID, and so
// may the ones after it. (The guard's count of spare IDs may be too high: ngtcp2 does not tell of those that it binds to
// a path for probes and retires unused.) While a validation is under way that would fall back to an ID of its own, as
// after rebindings that did get IDs, this leaves no two records with one number. Else it does, and until those
// validations are over nothing is taken that would make ngtcp2 use another ID: packets from a new address under an ID
// that the client didn't use before, as of an active move, and packets from its other paths. To the client they were
// lost. Only where no path is left at all, and that validation never over, they are read, as if from the current path,
// and their address is the next one that shares the ID.
//
// A client whose ID is empty, as a browser's is, has none that ngtcp2 could exchange: its paths share that, and nothing waits.

#include "internal.h"

#include <string.h>

// So many of the client's datagrams come from a new address, and none from the old one for a probe timeout, before we
// take it that ngtcp2 has no ID for the new path.
#define IGNORED_LIMIT 3

// Ports are numbers that are counted up: a path with an ID of its own has the number as its local port and the round of
// counting as its remote port, one that shares an ID has the number as its remote port. So no two are the same while they
// may live, and a connection that has used up the rounds follows its client no more.
#define FIRST_NUMBER 258
#define NUMBERS_PER_ROUND (65536 - FIRST_NUMBER)
#define LAST_COUNT (256 * NUMBERS_PER_ROUND - 1)
// Paths that may share one ID after each other: their numbers are different.
#define SHARED_COUNTS 60000

static bool same_address(const llq_address *a, const llq_address *b) {
    return a->high == b->high && a->low == b->low && a->scope == b->scope && a->port == b->port &&
           a->is_ipv6 == b->is_ipv6;
}

static bool same_host(const llq_address *a, const llq_address *b) {
    return a->high == b->high && a->low == b->low && a->scope == b->scope && a->is_ipv6 == b->is_ipv6;
}

static bool same_path(const llq_path *a, const llq_path *b) {
    return same_address(&a->local, &b->local) && same_address(&a->remote, &b->remote);
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t length) {
    // FNV-1a.
    for (const uint8_t *byte = bytes; length > 0; length--, byte++) hash = (hash ^ *byte) * 0x100000001b3u;
    return hash;
}

#define HASH_START 0xcbf29ce484222325u

/// Of the connection ID that a datagram goes to; 0 for long headers. We chose the ID at random, so nobody makes two alike.
static uint64_t hash_id(const llq_conn *conn, const uint8_t *packet, size_t length) {
    if (length <= conn->own_cid_length || packet[0] & 0x80) return 0;
    return hash_bytes(HASH_START, packet + 1, conn->own_cid_length);
}

void llq_alias_init(llq_path_aliases *aliases, const llq_path *first, const llq_settings *settings) {
    memset(aliases, 0, sizeof *aliases);
    aliases->first_ports = (llq_path_ports){first->local.port, first->remote.port};
    aliases->known[0].path = *first;
    aliases->known[0].ports = aliases->first_ports;
    aliases->known[0].was_current = true;
    // Nothing is looked up before the handshake is complete.
    aliases->known[0].allowance.is_validated = true;
    aliases->count = 1;
    const llq_preferred_address *preferred = settings->preferred_address;
    if (preferred) {
        aliases->preferred[0] = preferred->ipv4;
        aliases->preferred[1] = preferred->ipv6;
        aliases->preferred_unused[0] = preferred->has_ipv4 && !same_address(&preferred->ipv4, &first->local);
        aliases->preferred_unused[1] = preferred->has_ipv6 && !same_address(&preferred->ipv6, &first->local);
    }
    aliases->initial_rtt = settings->initial_rtt;
    aliases->idle_timeout = settings->max_idle_timeout;
}

static llq_path current_path(const llq_conn *conn) {
    llq_path path;
    llq_path_from_ngtcp2(&path, ngtcp2_conn_get_path(conn->conn));
    return path;
}

/// Whether a path of ngtcp2's is a real one under these ports.
static bool is_at(const llq_path *seen, const llq_path *real, llq_path_ports ports) {
    return seen->local.port == ports.local && seen->remote.port == ports.remote &&
           same_host(&seen->local, &real->local) && same_host(&seen->remote, &real->remote);
}

static bool same_ports(llq_path_ports a, llq_path_ports b) { return a.local == b.local && a.remote == b.remote; }

static size_t place_of(const llq_path_aliases *aliases, const llq_path *seen) {
    size_t i = 0;
    while (i < aliases->count && !is_at(seen, &aliases->known[i].path, aliases->known[i].ports)) i++;
    return i;
}

static bool is_taken(const llq_path_aliases *aliases, const llq_path *current, uint16_t port) {
    // Real ports, whose paths may be forgotten here.
    if (port == aliases->first_ports.local || port == aliases->first_ports.remote ||
        port == aliases->preferred[0].port || port == aliases->preferred[1].port || port == current->local.port)
        return true;
    for (size_t i = 0; i < aliases->count; i++)
        if (aliases->known[i].ports.local == port) return true;
    return false;
}

/// 0: there is none left.
static uint16_t next_number(llq_path_aliases *aliases, const llq_path *current) {
    uint16_t number;
    do {
        if (aliases->counted == LAST_COUNT) return 0;
        number = (uint16_t)(FIRST_NUMBER + ++aliases->counted % NUMBERS_PER_ROUND);
    } while (is_taken(aliases, current, number));
    return number;
}

/// Gives a path ports that make ngtcp2 take a new connection ID for it.
static bool take_own(llq_path_aliases *aliases, llq_path_alias *alias, const llq_path *current) {
    alias->ports.local = next_number(aliases, current);
    alias->ports.remote = (uint16_t)(1 + aliases->counted / NUMBERS_PER_ROUND);
    alias->birth = aliases->counted;
    // The preferred address is a new local address anyway; ngtcp2 must know it.
    for (int i = 0; i < 2; i++) {
        if (!aliases->preferred_unused[i] || !same_address(&aliases->preferred[i], &alias->path.local)) continue;
        aliases->preferred_unused[i] = false;
        alias->ports.local = aliases->preferred[i].port;
        return true;
    }
    return alias->ports.local != 0;
}

/// Gives a path ports that make it share the current path's connection ID.
static bool take_shared(llq_path_aliases *aliases, llq_path_alias *alias, const llq_path *current) {
    size_t place = place_of(aliases, current);
    // ngtcp2 may have gone back to a path that is forgotten here. Its client is heard all the same.
    alias->birth = place < aliases->count ? aliases->known[place].birth : aliases->counted;
    alias->ports.local = current->local.port;
    alias->ports.remote = next_number(aliases, current);
    return alias->ports.remote != 0 && aliases->counted - alias->birth < SHARED_COUNTS;
}

/// Whether a datagram makes no path use a connection ID that ngtcp2 would then exchange for another.
static bool goes_to_last_id(const llq_path_aliases *aliases, const llq_path_alias *alias) {
    return !aliases->has_twins || (alias->id != 0 && alias->id == aliases->last_id);
}

static bool enter_new(llq_conn *conn, const llq_path *path, llq_path_alias *alias, const llq_path *current) {
    llq_path_aliases *aliases = &conn->aliases;
    llq_path real = *current;
    llq_alias_restore(conn, &real);
    // A server that forbids moves lets a NAT change the port; to ngtcp2 another local address would be a move.
    alias->shares_id = same_address(&real.local, &path->local) &&
                       (conn->guard.spare_count == 0 || conn->forbids_migration || aliases->has_twins);
    if (!alias->shares_id && aliases->has_twins) return false;
    if (!goes_to_last_id(aliases, alias)) {
        if (!aliases->is_lost) return false;
        alias->is_masked = true;
        alias->ports = (llq_path_ports){current->local.port, current->remote.port};
        return true;
    }
    return alias->shares_id ? take_shared(aliases, alias, current) : take_own(aliases, alias, current);
}

static bool enter_known(llq_conn *conn, llq_path_alias *alias, const llq_path *current) {
    llq_path_aliases *aliases = &conn->aliases;
    if (aliases->known[alias->place].ignored >= IGNORED_LIMIT) {
        aliases->known[alias->place].ignored = 0;
        aliases->known[alias->place].shares_id = true;
    }
    alias->ports = aliases->known[alias->place].ports;
    alias->birth = aliases->known[alias->place].birth;
    aliases->known[alias->place].used = ++aliases->turn;
    if (is_at(current, &alias->path, alias->ports)) return true;
    alias->shares_id = aliases->known[alias->place].shares_id;
    if (!alias->shares_id) return !aliases->has_twins;
    return goes_to_last_id(aliases, alias) && take_shared(aliases, alias, current);
}

bool llq_alias_enter(llq_conn *conn, llq_path *path, llq_path_alias *alias, const uint8_t *packet, size_t length,
                     uint64_t now) {
    llq_path_aliases *aliases = &conn->aliases;
    aliases->now = now;
    aliases->is_followed = false;
    // A lost path's validation is never over.
    if (now >= aliases->shared_until && !aliases->is_lost) aliases->has_twins = false;
    llq_path current = current_path(conn);
    *alias = (llq_path_alias){.path = *path, .is_new = true, .before = current, .id = hash_id(conn, packet, length),
                              .validations = aliases->validations, .counted = aliases->counted};
    memcpy(alias->preferred_unused, aliases->preferred_unused, sizeof alias->preferred_unused);
    for (size_t i = 0; i < aliases->count && !aliases->is_lost; i++) {
        if (!same_path(path, &aliases->known[i].path)) continue;
        if (aliases->known[i].was_current && !is_at(&current, &aliases->known[i].path, aliases->known[i].ports)) continue;
        alias->place = i;
        alias->is_new = false;
        break;
    }
    bool is_welcome = alias->is_new ? enter_new(conn, path, alias, &current) : enter_known(conn, alias, &current);
    if (alias->is_masked) path->remote = current.remote;
    alias->is_current = alias->is_masked || is_at(&current, &alias->path, alias->ports);
    path->local.port = alias->ports.local;
    path->remote.port = alias->ports.remote;
    return is_welcome;
}

/// A path of which nothing is known is given the time of a new connection (RFC 9000 section 8.2.4).
static uint64_t longest_probe_timeout(const llq_conn *conn) {
    uint64_t initial = 3 * conn->aliases.initial_rtt + 25 * NGTCP2_MILLISECONDS;
    uint64_t pto = ngtcp2_conn_get_pto(conn->conn);
    return pto > initial ? pto : initial;
}

static size_t place_for(llq_path_aliases *aliases, const llq_path *current) {
    if (aliases->count < LLQ_PATH_ALIASES) return aliases->count++;
    size_t place = LLQ_PATH_ALIASES;
    for (size_t i = 0; i < aliases->count; i++) {
        if (is_at(current, &aliases->known[i].path, aliases->known[i].ports)) continue;
        if (is_at(&aliases->fallback, &aliases->known[i].path, aliases->known[i].ports)) continue;
        if (place == LLQ_PATH_ALIASES || aliases->known[i].used < aliases->known[place].used) place = i;
    }
    return place;
}

/// ngtcp2's current path is another one since the datagram.
static void note_move(llq_conn *conn, const llq_path_alias *alias) {
    llq_path_aliases *aliases = &conn->aliases;
    // A validation that ended meanwhile may have been the move itself, which then falls back to nothing.
    bool is_certain = alias->validations == aliases->validations;
    if (!aliases->is_validating || !is_certain) aliases->fallback = alias->before;
    aliases->is_validating = is_certain;
    if (!alias->shares_id) {
        aliases->has_fallback = is_certain;
        return;
    }
    if (ngtcp2_conn_get_dcid(conn->conn)->datalen == 0) return;
    if (!aliases->has_fallback || !is_certain) aliases->has_twins = true;
    // Two validations of the new path, the second where the first probe was small, and one of the old path: three probe
    // timeouts each.
    aliases->shared_until = aliases->now + 10 * longest_probe_timeout(conn);
}

void llq_alias_leave(llq_conn *conn, llq_path_alias *alias, bool authenticated) {
    llq_path_aliases *aliases = &conn->aliases;
    // Anybody can send a datagram from any address: only the peer's own are remembered.
    if (!authenticated) {
        aliases->counted = alias->counted;
        memcpy(aliases->preferred_unused, alias->preferred_unused, sizeof alias->preferred_unused);
        return;
    }
    if (aliases->is_followed) aliases->heard = aliases->now;
    if (alias->is_masked) {
        aliases->last_id = alias->id;
        return;
    }
    llq_path current = current_path(conn);
    bool has_new_ports = alias->is_new || !same_ports(aliases->known[alias->place].ports, alias->ports);
    if (alias->is_new) {
        aliases->is_lost = false;
        alias->place = place_for(aliases, &current);
        aliases->known[alias->place].path = alias->path;
        aliases->known[alias->place].used = ++aliases->turn;
        aliases->known[alias->place].ignored = 0;
        aliases->known[alias->place].shares_id = alias->shares_id;
        aliases->known[alias->place].was_current = false;
    }
    if (has_new_ports) aliases->known[alias->place].allowance = (llq_allowance){0};
    aliases->known[alias->place].ports = alias->ports;
    aliases->known[alias->place].birth = alias->birth;
    if (!is_at(&current, &alias->path, alias->ports)) {
        // Packets that were under way when the client moved are no sign that ngtcp2 can't follow it.
        bool is_silent = aliases->now > aliases->current_heard + ngtcp2_conn_get_pto(conn->conn);
        if (is_silent) aliases->known[alias->place].ignored++;
        // Of the newest packet that is no probe it is a sure one, unless it went to the preferred address.
        llq_path real = current;
        llq_alias_restore(conn, &real);
        if (aliases->is_followed && same_address(&real.local, &alias->path.local))
            aliases->known[alias->place].ignored = IGNORED_LIMIT;
        return;
    }
    aliases->current_heard = aliases->now;
    aliases->last_id = alias->id;
    aliases->known[alias->place].was_current = true;
    aliases->known[alias->place].ignored = 0;
    aliases->known[alias->place].shares_id = false;
    if (is_at(&alias->before, &alias->path, alias->ports)) return;
    note_move(conn, alias);
    llq_limit_begin(conn);
}

llq_allowance *llq_alias_allowance(llq_conn *conn) {
    llq_path current = current_path(conn);
    size_t place = place_of(&conn->aliases, &current);
    return place < conn->aliases.count ? &conn->aliases.known[place].allowance : NULL;
}

bool llq_alias_is_current(const llq_conn *conn, const llq_path_alias *alias) {
    llq_path current = current_path(conn);
    return is_at(&current, &alias->path, alias->ports);
}

void llq_alias_note_validation(llq_conn *conn, bool succeeded) {
    llq_path_aliases *aliases = &conn->aliases;
    aliases->validations++;
    aliases->is_validating = false;
    aliases->has_fallback = false;
    if (aliases->now >= aliases->shared_until) return;
    if (!succeeded) {
        // ngtcp2 is back on the old path, with the ID that only that has now.
        aliases->shared_until = 0;
        return;
    }
    // The old path is validated again, and by version 0.12 the new one before that if the first probe was small.
    uint64_t left = (LLQ_NGTCP2_1 ? 4 : 7) * longest_probe_timeout(conn);
    if (aliases->now + left < aliases->shared_until) aliases->shared_until = aliases->now + left;
}

uint64_t llq_alias_lost_until(const llq_conn *conn) {
    const llq_path_aliases *aliases = &conn->aliases;
    return aliases->heard + (aliases->idle_timeout > 0 ? aliases->idle_timeout : 30 * NGTCP2_SECONDS);
}

void llq_alias_restore(const llq_conn *conn, llq_path *path) {
    const llq_path_aliases *aliases = &conn->aliases;
    if (!conn->is_server) return;
    size_t place = place_of(aliases, path);
    if (place < aliases->count) {
        *path = aliases->known[place].path;
        return;
    }
    // Forgotten: a probe of it may still leave, from where most packets do, and gets no answer.
    for (size_t i = 0; i < aliases->count; i++) {
        if (aliases->known[i].path.local.is_ipv6 != path->local.is_ipv6) continue;
        path->local.port = aliases->known[i].path.local.port;
        return;
    }
}
