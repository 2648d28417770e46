import Crypto
import FoundationEssentials
import Hummingbird
import NIOCore

/// What is the same for everybody: the dashboard's page, and the description of this interface.
struct DocumentRoutes: Sendable {
    var routes: [ControlRoute] {
        [
            ControlRoute(.get, "/", on: .admin) { _, _ in Self.dashboard },
            ControlRoute(.get, "/openapi.yaml", on: .service) { _, _ in Self.description },
        ]
    }

    /// One answer for all: whoever asks without reading has the server hold no copy of it.
    private static let description = document(PackageResources.openapi_yaml, "application/yaml")

    /// The page has its script and style in it, which its policy names by their hashes: nothing else runs, and nothing is
    /// loaded but figures of the same origin.
    private static let dashboard: Response = {
        let page = String(decoding: PackageResources.dashboard_html, as: UTF8.self)
        var response = document(PackageResources.dashboard_html, "text/html; charset=utf-8")
        response.headers[.contentSecurityPolicy] =
            "default-src 'none'; script-src \(source("script", page)); style-src \(source("style", page)); "
            + "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return response
    }()

    /// The hash of what stands in an element, as a policy names it.
    static func source(_ element: String, _ page: String) -> String {
        guard let start = page.firstRange(of: "<\(element)>"),
            let end = page[start.upperBound...].firstRange(of: "</\(element)>")
        else { return "'none'" }
        let hash = SHA256.hash(data: Data(page[start.upperBound..<end.lowerBound].utf8))
        return "'sha256-\(Data(hash).base64EncodedString())'"
    }

    private static func document(_ bytes: [UInt8], _ type: String) -> Response {
        Response(
            status: .ok, headers: [.contentType: type, .cacheControl: "no-cache"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
    }
}
