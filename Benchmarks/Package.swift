// swift-tools-version: 6.1
import PackageDescription

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
]

/// A benchmark is an executable of its own, so that running one builds no more than it needs: `Sources/NAME/main.swift`
/// and one line in the list below. The first line of main.swift is what `scripts/bench list` shows.
func benchmark(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: ["BenchmarkHarness"] + dependencies, swiftSettings: settings)
}

func longline(_ product: String) -> Target.Dependency { .product(name: product, package: "longline") }
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")

let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let quic: [Target.Dependency] = [
    "PeerHarness", longline("QUICEngine"), longline("QUICTransport"), nioCore, nioPosix,
]

let package = Package(
    name: "longline-benchmarks",
    traits: [.trait(name: "IPSecMB", description: "Longline's trait of that name")],
    dependencies: [
        .package(
            name: "longline", path: "..",
            traits: [.trait(name: "IPSecMB", condition: .when(traits: ["IPSecMB"]))]),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.30.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        .target(
            name: "BenchmarkHarness", dependencies: [.product(name: "Histogram", package: "hdrhistogram-swift")],
            swiftSettings: settings),
        .target(
            name: "PeerHarness",
            dependencies: [
                longline("QUICEngine"), longline("QUICTransport"), nioCore, nioPosix,
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: settings),
        .target(
            name: "SessionHarness",
            dependencies: [
                "PeerHarness", longline("LonglineLinks"), longline("LonglineServer"), longline("LonglineSession"),
                longline("LonglineStore"), longline("LonglineWire"), longline("QUICEngine"), longline("QUICTransport"),
                nioCore, nioPosix, .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: settings),
        benchmark(
            "access",
            quic + [
                longline("HTTP3"), longline("LonglineControl"), longline("LonglineServer"), longline("LonglineStore"),
                longline("LonglineWire"), .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"), .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        benchmark(
            "catch-up",
            [
                "PeerHarness", "SessionHarness", longline("LonglineClient"), longline("LonglineServer"),
                longline("LonglineStore"), longline("LonglineWire"), .product(name: "Logging", package: "swift-log"),
            ]),
        benchmark("engine", [longline("QUICEngine")]),
        benchmark(
            "publish",
            [
                longline("LonglineClient"), longline("LonglineServer"), longline("LonglineStore"),
                longline("LonglineWire"), longline("QUICEngine"), nioCore, nioPosix, "PeerHarness",
                .product(name: "Logging", package: "swift-log"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        benchmark(
            "h3",
            quic + [
                longline("HTTP3"), .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"),
            ]),
        benchmark("quic-bulk", quic),
        benchmark("quic-handshake", quic),
        .target(name: "CHeap"),
        benchmark("quic-idle", quic + ["CHeap"]),
        benchmark("quic-impaired", [longline("QUICEngine")]),
        benchmark("quic-rr", quic + [.product(name: "NIOConcurrencyHelpers", package: "swift-nio")]),
        benchmark("rooms", ["PeerHarness", "SessionHarness", longline("LonglineWire"), nioCore]),
        benchmark(
            "session-idle",
            quic + [
                "CHeap", "SessionHarness", longline("LonglineLinks"), longline("LonglineServer"),
                longline("LonglineWire"),
            ]),
        benchmark("wire", [longline("LonglineWire"), nioCore]),
    ]
)
