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
// A client that gave no ID to spare can't be followed that way. Its new address shares the ID, and until all that
// may be validated is over, nothing is taken from its other addresses: to the client a few packets were lost.

#include "internal.h"

#include <string.h>

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

void llq_alias_init(llq_path_aliases *aliases, const llq_path *first, uint64_t initial_rtt) {
    memset(aliases, 0, sizeof *aliases);
    aliases->known[0].path = *first;
    aliases->known[0].port = first->local.port;
    aliases->count = 1;
    aliases->initial_rtt = initial_rtt;
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

bool llq_alias_enter(llq_conn *conn, llq_path *path, llq_path_alias *alias, uint64_t now) {
    llq_path_aliases *aliases = &conn->aliases;
    aliases->now = now;
    if (now < aliases->alone_until && !same_path(path, &aliases->alone)) {
        aliases->dropped++;
        return false;
    }
    *alias = (llq_path_alias){.path = *path, .is_new = true};
    for (size_t i = 0; i < aliases->count; i++) {
        if (!same_path(path, &aliases->known[i].path)) continue;
        alias->port = aliases->known[i].port;
        alias->is_new = false;
        aliases->known[i].used = ++aliases->turn;
        break;
    }
    if (alias->is_new) {
        llq_path current = current_path(conn);
        llq_alias_restore(conn, &current);
        // A server that forbids moves lets a NAT change the port; to ngtcp2 another local address would be a move.
        alias->shares_id = same_address(&current.local, &path->local) &&
                           (conn->guard.spare_count == 0 || conn->forbids_migration);
        alias->port = alias->shares_id ? current_path(conn).local.port : choose_port(aliases, &path->local);
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

void llq_alias_leave(llq_conn *conn, const llq_path_alias *alias, bool authenticated) {
    llq_path_aliases *aliases = &conn->aliases;
    // Anybody can send a datagram from any address: only the peer's own are remembered.
    if (!alias->is_new || !authenticated) return;
    llq_path current = current_path(conn);
    size_t place = aliases->count;
    if (aliases->count < LLQ_PATH_ALIASES) {
        aliases->count++;
    } else {
        place = aliases->known[0].port == current.local.port ? 1 : 0;
        for (size_t i = place; i < aliases->count; i++)
            if (aliases->known[i].port != current.local.port && aliases->known[i].used < aliases->known[place].used)
                place = i;
    }
    aliases->known[place].path = alias->path;
    aliases->known[place].port = alias->port;
    aliases->known[place].used = ++aliases->turn;
    if (alias->shares_id && current.local.port == alias->port && same_address(&current.remote, &alias->path.remote)) {
        aliases->alone = alias->path;
        // Two validations of the new path, the second where the first probe was small, and one of the old path: three
        // probe timeouts each.
        aliases->alone_until = aliases->now + 10 * longest_probe_timeout(conn);
    }
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
