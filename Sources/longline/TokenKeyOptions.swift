import ArgumentParser
import Foundation
import LonglineServer
import LonglineStore
import NIOCore

/// Where the keys come from that tokens are verified with.
struct TokenKeyOptions: ParsableArguments {
    @Option(
        help: """
            A file with a public key in PEM form (Ed25519 or P-256) that tokens are verified with, besides the data folder's \
            own. It is read again and again. Give it several times for several.
            """)
    var tokenKey: [String] = []

    @Option(
        name: .customLong("jwks"),
        help: """
            Public keys as a JWKS (RFC 7517) that tokens are verified with as well: a file, or an address that begins with \
            https:// (http:// on a private network). It is read again and again. Give it several times for several.
            """)
    var keySets: [String] = []

    @Option(
        name: .customLong("jwks-interval"),
        help: """
            How many seconds lie between two reads, up to 86400; by default 5, and 60 for a set behind an address. SIGHUP reads \
            at once.
            """)
    var interval: Int?

    @Option(
        name: .customLong("jwks-ca"),
        help: "A file with the certificate authorities, in PEM, that vouch for the addresses, instead of the system's.")
    var authorities: String?

    @Option(help: "How many seconds the clock of the tokens' signer may be from this one's, up to 3600.")
    var clockSkew: Int = 30

    /// The most that these are, in seconds.
    static let largestClockSkew = Int(StoreLimits.largestTokenSkew / 1_000)

    func validate() throws {
        guard (0...Self.largestClockSkew).contains(clockSkew) else {
            throw ValidationError("--clock-skew has to be 0 to \(Self.largestClockSkew).")
        }
        if let interval, !(1...86_400).contains(interval) {
            throw ValidationError("--jwks-interval has to be 1 to 86400.")
        }
        if authorities != nil, !keySets.contains(where: Self.isAddress) {
            throw ValidationError("--jwks-ca goes with --jwks and an address.")
        }
    }

    static func isAddress(_ set: String) -> Bool { set.hasPrefix("https://") || set.hasPrefix("http://") }

    func apply(to configuration: inout LonglineServer.Configuration, besides own: [any TokenKeySource]) throws {
        let trust =
            try authorities.map { HTTPTrust.authorities(pem: try ServerCommand.text(ofFile: $0)) } ?? .systemRoots
        configuration.tokenKeySources = own
        for set in keySets {
            configuration.tokenKeySources.append(
                Self.isAddress(set) ? try KeySetAddress(url: set, trust: trust) : KeySetFile(path: set))
        }
        configuration.tokenKeyInterval = interval.map { .seconds($0) }
        configuration.tokenClockSkew = .seconds(Int64(clockSkew))
    }
}
