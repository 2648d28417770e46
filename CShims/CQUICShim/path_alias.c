// ngtcp2, 0.12 and 1.x alike, goes on with the same destination connection ID when a client's packets come from a new
// address under an ID that it used before, as after a NAT's rebinding. Until that path and the one before are validated,
// two records name one sequence number. When the client moves on to a new ID meanwhile, ngtcp2 retires that number
// and goes on counting it: the next NEW_CONNECTION_ID of an honest client is one too many (CONNECTION_ID_LIMIT_ERROR),
// and version 0.12 aborts the process when it retires the number again before the first frame was acknowledged, which
// a client alone decides.
//
// A server of ngtcp2 takes a new ID for a path whose local address is new (RFC 9000 section 9.5). So each address of
// the client gets a local port of its own that only ngtcp2 sees: no two paths share an ID then.
//
// A client that comes back to an address that it left gets a new port for it too: version 0.12 asserts that no path MTU
// discovery runs when a client returns to the path that a validation would fall back to, and one may run (its test for a
// small probe looks at the wrong flags).
//
// The same ports keep a connection alive that version 0.12 would give up (NO_VIABLE_PATH): when a path's first probe was
// small, as after a rebinding, and no full-sized one is answered within seconds, because the client is in a tunnel, say.
// Nothing is written then until the client is heard again, whose address is a new path by its new port.
//
// A client that gave no ID to spare, or whose spare ones are used up, can't be followed that way. Its new address shares
// the ID, and until all that may be validated is over, nothing is taken from its other addresses: to the client a few
// packets were lost. (The guard's count of spare IDs may be too high: ngtcp2 does not tell of those that it binds to a
// path for probes and retires unused.)

#include "internal.h"

#include <string.h>

// So many of the client's datagrams come from a new address, and none from the old one for a probe timeout, before we
// take it that ngtcp2 has no ID for the new path.
#define IGNORED_LIMIT 3

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

void llq_alias_init(llq_path_aliases *aliases, const llq_path *first, const llq_settings *settings) {
    memset(aliases, 0, sizeof *aliases);
    aliases->known[0].path = *first;
    aliases->known[0].port = first->local.port;
    aliases->known[0].was_current = true;
    aliases->count = 1;
    aliases->initial_rtt = settings->initial_rtt;
    aliases->idle_timeout = settings->max_idle_timeout;
}

static bool is_port_taken(const llq_path_aliases *aliases, const llq_address *local, uint16_t port) {
    for (size_t i = 0; i < aliases->count; i++) {
        if (!same_host(&aliases->known[i].path.local, local)) continue;
        if (aliases->known[i].port == port || aliases->known[i].path.local.port == port) return true;
    }
    return false;
}

static uint16_t choose_port(llq_path_aliases *aliases, const llq_address *local) {
    // An address of ours that is new here, the preferred one, is a new local address anyway; ngtcp2 must know it.
    if (!is_port_taken(aliases, local, local->port)) return local->port;
    do aliases->last_port++;
    while (aliases->last_port == 0 || is_port_taken(aliases, local, aliases->last_port));
    return aliases->last_port;
}

static llq_path current_path(const llq_conn *conn) {
    llq_path path;
    llq_path_from_ngtcp2(&path, ngtcp2_conn_get_path(conn->conn));
    return path;
}

/// Whether ngtcp2's current path is a real one under a port.
static bool is_at(const llq_path *current, const llq_path *real, uint16_t port) {
    return current->local.port == port && same_host(&current->local, &real->local) &&
           same_address(&current->remote, &real->remote);
}

bool llq_alias_enter(llq_conn *conn, llq_path *path, llq_path_alias *alias, uint64_t now) {
    llq_path_aliases *aliases = &conn->aliases;
    aliases->now = now;
    if (now < aliases->alone_until && !same_path(path, &aliases->alone)) {
        aliases->dropped++;
        return false;
    }
    *alias = (llq_path_alias){.path = *path, .is_new = true};
    llq_path current = current_path(conn);
    for (size_t i = 0; i < aliases->count; i++) {
        if (!same_path(path, &aliases->known[i].path)) continue;
        if (aliases->known[i].was_current && !is_at(&current, &aliases->known[i].path, aliases->known[i].port)) continue;
        if (aliases->is_lost) continue;
        alias->place = i;
        alias->is_new = false;
        if (aliases->known[i].ignored >= IGNORED_LIMIT) {
            aliases->known[i].ignored = 0;
            aliases->known[i].shares_id = true;
            aliases->known[i].port = current.local.port;
        }
        alias->port = aliases->known[i].port;
        alias->shares_id = aliases->known[i].shares_id;
        aliases->known[i].used = ++aliases->turn;
        break;
    }
    if (alias->is_new) {
        llq_path real = current;
        llq_alias_restore(conn, &real);
        // A server that forbids moves lets a NAT change the port; to ngtcp2 another local address would be a move.
        alias->shares_id = same_address(&real.local, &path->local) &&
                           (conn->guard.spare_count == 0 || conn->forbids_migration);
        alias->port = alias->shares_id ? current.local.port : choose_port(aliases, &path->local);
    }
    path->local.port = alias->port;
    return true;
}

/// A path of which nothing is known is given the time of a new connection (RFC 9000 section 8.2.4).
static uint64_t longest_probe_timeout(const llq_conn *conn) {
    uint64_t initial = 3 * conn->aliases.initial_rtt + 25 * NGTCP2_MILLISECONDS;
    uint64_t pto = ngtcp2_conn_get_pto(conn->conn);
    return pto > initial ? pto : initial;
}

static size_t place_for(llq_path_aliases *aliases, const llq_path *current) {
    if (aliases->count < LLQ_PATH_ALIASES) return aliases->count++;
    size_t place = is_at(current, &aliases->known[0].path, aliases->known[0].port) ? 1 : 0;
    for (size_t i = place; i < aliases->count; i++)
        if (aliases->known[i].used < aliases->known[place].used &&
            !is_at(current, &aliases->known[i].path, aliases->known[i].port))
            place = i;
    return place;
}

void llq_alias_leave(llq_conn *conn, llq_path_alias *alias, bool authenticated) {
    llq_path_aliases *aliases = &conn->aliases;
    // Anybody can send a datagram from any address: only the peer's own are remembered.
    if (!authenticated) return;
    llq_path current = current_path(conn);
    if (alias->is_new) {
        aliases->is_lost = false;
        alias->place = place_for(aliases, &current);
        aliases->known[alias->place].path = alias->path;
        aliases->known[alias->place].port = alias->port;
        aliases->known[alias->place].used = ++aliases->turn;
        aliases->known[alias->place].ignored = 0;
        aliases->known[alias->place].shares_id = alias->shares_id;
        aliases->known[alias->place].was_current = false;
    }
    bool is_current = is_at(&current, &alias->path, alias->port);
    if (!is_current) {
        // Packets that were under way when the client moved are no sign that ngtcp2 can't follow it.
        bool is_silent = aliases->now > aliases->current_heard + ngtcp2_conn_get_pto(conn->conn);
        if (is_silent) aliases->known[alias->place].ignored++;
        return;
    }
    aliases->current_heard = aliases->now;
    aliases->known[alias->place].was_current = true;
    aliases->known[alias->place].ignored = 0;
    if (!alias->shares_id) return;
    aliases->known[alias->place].shares_id = false;
    aliases->alone = alias->path;
    // Two validations of the new path, the second where the first probe was small, and one of the old path: three probe
    // timeouts each.
    aliases->alone_until = aliases->now + 10 * longest_probe_timeout(conn);
}

void llq_alias_note_validation(llq_conn *conn, const llq_path *path, bool succeeded) {
    llq_path_aliases *aliases = &conn->aliases;
    if (aliases->now >= aliases->alone_until || !same_path(path, &aliases->alone)) return;
    if (!succeeded) {
        // ngtcp2 is back on the old path, with the ID that only that has now.
        aliases->alone_until = 0;
        return;
    }
    uint64_t left = 7 * longest_probe_timeout(conn);
    if (aliases->now + left < aliases->alone_until) aliases->alone_until = aliases->now + left;
}

uint64_t llq_alias_lost_until(const llq_conn *conn) {
    const llq_path_aliases *aliases = &conn->aliases;
    return aliases->now + (aliases->idle_timeout > 0 ? aliases->idle_timeout : 30 * NGTCP2_SECONDS);
}

void llq_alias_restore(const llq_conn *conn, llq_path *path) {
    const llq_path_aliases *aliases = &conn->aliases;
    if (!conn->is_server) return;
    for (size_t i = 0; i < aliases->count; i++) {
        if (aliases->known[i].port != path->local.port) continue;
        if (!same_host(&aliases->known[i].path.local, &path->local)) continue;
        if (!same_address(&aliases->known[i].path.remote, &path->remote)) continue;
        path->local = aliases->known[i].path.local;
        return;
    }
    // Forgotten: its packets can still be sent, from where most are.
    for (size_t i = 0; i < aliases->count; i++) {
        if (aliases->known[i].path.local.is_ipv6 != path->local.is_ipv6) continue;
        path->local.port = aliases->known[i].path.local.port;
        return;
    }
}
