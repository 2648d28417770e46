import Hummingbird
import LonglineServer
import LonglineWire

/// Who calls, as an API key says.
struct Caller: Sendable {
    let key: APIKeyInfo
    /// The tenant that everything is about.
    let tenant: TenantID
}

/// Lets callers in by their API keys. It is asked before anything of a request is looked at, so that who has no key learns
/// nothing: every such call gets the same answer.
struct APIKeyGate: Sendable {
    let keys: APIKeys
    /// Tenants that are served; nil: every one.
    let tenants: Set<TenantID>?

    /// The caller of an app server's route.
    /// - Throws: ``Problem``: unauthorized without a good key, forbidden without the right.
    func caller(_ request: Request, _ right: APIKeyRight) async throws(Problem) -> Caller {
        let key = try await key(request, right)
        guard let tenant = key.tenant else { throw Problem(.forbidden, "the key is for no tenant") }
        try check(tenant)
        return Caller(key: key, tenant: tenant)
    }

    /// The caller of an operator's route that is about one tenant: the key's, or the one that the query names.
    func tenantOperator(_ request: Request) async throws(Problem) -> Caller {
        let key = try await key(request, .operate)
        let named = try request.queryName("tenant").map { name throws(Problem) in
            try checked("tenant", name, TenantID.init)
        }
        if let own = key.tenant {
            guard named == nil || named == own else { throw Problem(.forbidden, "the key is for another tenant") }
            try check(own)
            return Caller(key: key, tenant: own)
        }
        guard let named else { throw Problem(.invalidRequest, "'tenant' is missing: the key is for all of them") }
        try check(named)
        return Caller(key: key, tenant: named)
    }

    /// The caller of a route that is about the node itself.
    func nodeOperator(_ request: Request) async throws(Problem) -> APIKeyInfo {
        let key = try await key(request, .operate)
        guard key.tenant == nil else {
            throw Problem(.forbidden, "this needs an operator's key, which is for no tenant")
        }
        return key
    }

    /// Figures of a node: who reads them is an operator, or a process of the same machine.
    func reader(_ request: Request, _ context: ControlContext) async throws(Problem) {
        if context.isFromThisMachine { return }
        _ = try await nodeOperator(request)
    }

    private func key(_ request: Request, _ right: APIKeyRight) async throws(Problem) -> APIKeyInfo {
        let found: APIKeyInfo?
        do { found = try await keys.find(request.bearer) } catch {
            throw Problem(.unavailable, retryAfter: 1, cause: error)
        }
        guard let found else { throw Problem(.unauthorized) }
        guard found.rights.contains(right) else {
            throw Problem(.forbidden, "the key does not have the right '\(right.rawValue)'")
        }
        return found
    }

    private func check(_ tenant: TenantID) throws(Problem) {
        guard tenants?.contains(tenant) ?? true else { throw Problem(.tenantNotServed) }
    }
}
