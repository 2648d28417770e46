import LonglineServer

/// Every route there is.
struct ControlRoutes {
    let table: RouteTable

    init(
        server: LonglineServer, configuration: LonglineControl.Configuration, node: NodeID, access: CurrentAccess,
        sampler: StatisticsSampler, metrics: PrometheusMetrics, idempotency: IdempotencyKeys
    ) {
        let keys = ControlKeys(configuration.keys, interval: configuration.keyInterval, logger: configuration.logger)
        server.alsoReloadTokenKeys { try await keys.reload() }
        let gate = APIKeyGate(keys: APIKeys(configuration.database), tenants: server.configuration.tenants)
        let reader = RequestReader(bodyTimeout: configuration.limits.bodyTimeout)
        let local = LocalNode(id: node, server: server, sampler: sampler, access: access)
        let nodes: any NodeDirectory = configuration.nodes ?? local
        let groups: [[ControlRoute]] = [
            TokenRoutes(
                server: server, gate: gate, keys: keys, logins: LoginEpochs(database: configuration.database),
                idempotency: idempotency, reader: reader, limits: configuration.limits, time: configuration.time
            ).routes,
            UserRoutes(server: server, gate: gate).routes,
            AccessRoutes(
                server: server, nodes: nodes, keys: keys, settings: access, time: configuration.time
            ).routes,
            MessageRoutes(
                server: server, gate: gate, idempotency: idempotency, reader: reader, time: configuration.time
            ).routes,
            RetractionRoutes(server: server, gate: gate, idempotency: idempotency, time: configuration.time).routes,
            MemberRoutes(server: server, gate: gate, reader: reader).routes,
            RoomRoutes(server: server, gate: gate).routes,
            SessionRoutes(server: server, gate: gate, node: node).routes,
            NodeRoutes(
                server: server, gate: gate, nodes: nodes, database: configuration.database, reader: reader
            ).routes,
            FigureRoutes(
                sampler: sampler, metrics: metrics, nodes: nodes, local: local, gate: gate,
                patience: configuration.limits.requestTimeout / 6
            ).routes,
            DocumentRoutes().routes,
        ]
        table = RouteTable(groups.flatMap { $0 })
    }
}
