import HTTPTypes
import Hummingbird

/// One route: what OpenAPI calls an operation.
struct ControlRoute: Sendable {
    typealias Handler = @Sendable (Request, ControlContext) async throws -> Response

    let method: HTTPRequest.Method
    /// With parameters in braces, each a segment of its own.
    let path: String
    /// Whether clients and app servers reach it; operators reach every route.
    let listener: ControlListener
    let handle: Handler

    init(
        _ method: HTTPRequest.Method, _ path: String, on listener: ControlListener, _ handle: @escaping Handler
    ) {
        self.method = method
        self.path = path
        self.listener = listener
        self.handle = handle
    }
}

/// All routes, by which a request that no route is for learns why.
struct RouteTable: Sendable {
    let routes: [ControlRoute]
    private let segments: [[Substring]]

    init(_ routes: [ControlRoute]) {
        self.routes = routes
        segments = routes.map { Self.split($0.path) }
    }

    /// The route for a request.
    /// - Throws: ``Problem``: there is no such path on this listener, or not with this method.
    func route(
        _ method: HTTPRequest.Method, _ path: String, on listener: ControlListener
    ) throws(Problem) -> ControlRoute {
        // Over HTTP/2 it may be anything; what stands before the first slash would count for nothing.
        guard path.utf8.first == UInt8(ascii: "/") else { throw Problem(.notFound) }
        let asked = Self.split(path)
        var allowed: Set<String> = []
        for (route, segments) in zip(routes, segments) where segments.count == asked.count {
            guard listener == .admin || route.listener == .service,
                zip(segments, asked).allSatisfy({ $0.hasPrefix("{") ? !$1.isEmpty : $0 == $1 })
            else { continue }
            if route.method == method || method == .head && route.method == .get { return route }
            allowed.insert(route.method.rawValue)
        }
        guard !allowed.isEmpty else { throw Problem(.notFound) }
        if allowed.contains("GET") { allowed.insert("HEAD") }
        throw Problem(.methodNotAllowed, allow: allowed.sorted().joined(separator: ", "))
    }

    private static func split(_ path: String) -> [Substring] {
        path.split(separator: "/", omittingEmptySubsequences: false).dropFirst().map { $0 }
    }
}
