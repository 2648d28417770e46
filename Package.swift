// swift-tools-version: 6.1
import PackageDescription

// One setting list for every target: strict import visibility everywhere, and in CI (LONGLINE_STRICT=1) warnings are
// errors. The flag is ours alone, so that a warning in a dependency can't fail our build.
var settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
]
let isStrict = Context.environment["LONGLINE_STRICT"] == "1"
if isStrict { settings.append(.unsafeFlags(["-warnings-as-errors"])) }
// What the simulation of sessions spends its time in. Where the whole suite runs it is optimised, which makes thousands of
// seeds about three times as fast; assertions and checks of exclusive access stay as in any debug build.
var simulatedSettings = settings
if isStrict {
    simulatedSettings.append(
        .unsafeFlags(["-O", "-assert-config", "Debug", "-enforce-exclusivity=checked"], .when(configuration: .debug)))
}

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let configuration = Target.Dependency.product(name: "Configuration", package: "swift-configuration")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let jwtKit = Target.Dependency.product(name: "JWTKit", package: "jwt-kit")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let metrics = Target.Dependency.product(name: "Metrics", package: "swift-metrics")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")

let yams = Target.Dependency.product(name: "Yams", package: "Yams")

let package = Package(
    name: "longline",
    products: [
        .library(name: "QUICEngine", targets: ["QUICEngine"]),
        .library(name: "QUICTransport", targets: ["QUICTransport"]),
        .library(name: "HTTP3", targets: ["HTTP3"]),
        .library(name: "LonglineWire", targets: ["LonglineWire"]),
        .library(name: "LonglineKeys", targets: ["LonglineKeys"]),
        .library(name: "LonglineSession", targets: ["LonglineSession"]),
        .library(name: "LonglineLinks", targets: ["LonglineLinks"]),
        .library(name: "LonglineClient", targets: ["LonglineClient"]),
        .library(name: "LonglineStore", targets: ["LonglineStore"]),
        .library(name: "LonglineServer", targets: ["LonglineServer"]),
        .library(name: "LonglineControl", targets: ["LonglineControl"]),
    ],
    traits: [
        .trait(
            name: "IPSecMB",
            description: "Packet protection on intel-ipsec-mb where the CPU has VAES (amd64, Debian's libipsec-mb-dev)")
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0", traits: []),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
        .package(url: "https://github.com/apple/swift-http-structured-headers", from: "1.7.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.0"),
        .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/jpsim/Yams", "5.4.0"..<"7.0.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.30.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/vapor/jwt-kit", from: "5.7.0"),
    ],
    targets: [
        .systemLibrary(
            name: "CGnuTLS", path: "CShims/CGnuTLS", pkgConfig: "gnutls",
            providers: [.apt(["libgnutls28-dev"]), .brew(["gnutls"])]),
        .systemLibrary(
            name: "CNgtcp2", path: "CShims/CNgtcp2", pkgConfig: "libngtcp2_crypto_gnutls",
            providers: [.apt(["libngtcp2-dev", "libngtcp2-crypto-gnutls-dev"]), .brew(["libngtcp2"])]),
        .target(
            name: "CQUICShim", dependencies: ["CGnuTLS", "CNgtcp2"], path: "CShims/CQUICShim",
            cSettings: [.define("LLQ_IPSEC_MB", .when(traits: ["IPSecMB"]))],
            linkerSettings: [
                .linkedLibrary("IPSec_MB", .when(traits: ["IPSecMB"])),
                .linkedLibrary("ngtcp2_crypto_gnutls"), .linkedLibrary("ngtcp2"), .linkedLibrary("gnutls"),
            ]),
        .systemLibrary(
            name: "CNghttp3", path: "CShims/CNghttp3", pkgConfig: "libnghttp3",
            providers: [.apt(["libnghttp3-dev"]), .brew(["libnghttp3"])]),
        .target(
            name: "CHTTP3Shim", dependencies: ["CNghttp3"], path: "CShims/CHTTP3Shim",
            linkerSettings: [.linkedLibrary("nghttp3")]),
        .target(name: "CDatagramSocket", path: "CShims/CDatagramSocket"),
        // zlib, for batches of frames.
        .target(name: "CDeflate", path: "CShims/CDeflate", linkerSettings: [.linkedLibrary("z")]),
        .target(name: "CProcessSpawn", path: "CShims/CProcessSpawn"),
        .target(name: "CSocketSteering", path: "CShims/CSocketSteering"),
        .target(
            name: "QUICEngine", dependencies: ["CGnuTLS", "CNgtcp2", "CQUICShim"], swiftSettings: settings),
        // Names of hosts, looked up where that holds up nothing else. No product: the package's own.
        .target(name: "HostNames", dependencies: [nioCore, nioPosix], swiftSettings: settings),
        .target(
            name: "QUICTransport",
            dependencies: [
                "CDatagramSocket", "CSocketSteering", "HostNames", "QUICEngine", nioCore, nioPosix, logging, metrics,
                deque,
            ],
            swiftSettings: settings),
        .target(
            name: "HTTP3",
            dependencies: [
                "CHTTP3Shim", "QUICEngine", "QUICTransport", deque, httpTypes, logging, nioCore, nioPosix,
                .product(name: "RawStructuredFieldValues", package: "swift-http-structured-headers"),
            ],
            swiftSettings: settings),
        .target(name: "LonglineWire", dependencies: ["CDeflate", nioCore], swiftSettings: simulatedSettings),
        .target(
            name: "LonglineSession", dependencies: ["LonglineWire", nioCore, deque], swiftSettings: simulatedSettings),
        .target(
            name: "LonglineStore",
            dependencies: [
                "LonglineWire", nioCore, logging, .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
            ],
            swiftSettings: settings),
        .target(
            name: "LonglineLinks",
            dependencies: [
                "LonglineSession", "LonglineWire", "QUICEngine", "QUICTransport", logging, nioCore, nioPosix,
            ],
            swiftSettings: settings),
        // What tokens and other signed statements are signed and verified with.
        .target(
            name: "LonglineKeys", dependencies: [crypto, .product(name: "CryptoExtras", package: "swift-crypto")],
            swiftSettings: settings),
        // A small HTTP/1.1 client. No product: the package's own.
        .target(
            name: "LonglineHTTP", dependencies: ["HostNames", crypto, nioCore, nioHTTP1, nioPosix, nioSSL],
            swiftSettings: settings),
        .target(
            name: "LonglineServer",
            dependencies: [
                "LonglineHTTP", "LonglineKeys", "LonglineLinks", "LonglineSession", "LonglineStore", "LonglineWire",
                "QUICEngine", "QUICTransport", crypto,
                jwtKit, deque, logging, nioCore, nioHTTP1, nioPosix, nioSSL,
                .product(name: "HeapModule", package: "swift-collections"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: settings),
        .target(
            name: "LonglineControl",
            dependencies: [
                "HTTP3", "LonglineKeys", "LonglineLinks", "LonglineServer", "LonglineSession", "LonglineStore",
                "LonglineWire", "QUICEngine", "QUICTransport", crypto, hummingbird,
                httpTypes, logging, metrics, nioCore, nioHTTP1, nioPosix, nioSSL,
                .product(name: "CoreMetrics", package: "swift-metrics"),
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "HummingbirdHTTP2", package: "hummingbird"),
                .product(name: "HummingbirdTLS", package: "hummingbird"),
                .product(name: "NIOHTTP2", package: "swift-nio-http2"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "NIOHTTPTypesHTTP1", package: "swift-nio-extras"),
                .product(name: "NIOHTTPTypesHTTP2", package: "swift-nio-extras"),
                .product(name: "NIOTLS", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            resources: [.embedInCode("Resources/dashboard.html"), .embedInCode("Resources/openapi.yaml")],
            swiftSettings: settings),
        .target(
            name: "LonglineClient",
            dependencies: [
                "HTTP3", "HostNames", "LonglineHTTP", "LonglineKeys", "LonglineLinks", "LonglineSession",
                "LonglineWire", "QUICEngine", "QUICTransport", deque, httpTypes, logging, nioCore, nioHTTP1, nioPosix,
                .product(name: "GRDB", package: "GRDB.swift"),
            ],
            swiftSettings: settings),
        // What settings are, and where their values come from. No product: the tool's own.
        .target(
            name: "LonglineSettings", dependencies: [configuration, yams], swiftSettings: settings),
        .executableTarget(
            name: "longline",
            dependencies: [
                "CProcessSpawn", "LonglineClient", "LonglineControl", "LonglineKeys", "LonglineServer",
                "LonglineSettings", "LonglineStore", "LonglineWire", "QUICEngine", "QUICTransport", argumentParser,
                metrics,
                logging, nioCore, nioPosix, .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            swiftSettings: settings),
        .target(
            name: "LonglineTestKit",
            dependencies: [
                "LonglineSession", "LonglineStore", "LonglineWire", "QUICEngine", logging, nioCore, nioPosix,
            ],
            swiftSettings: simulatedSettings),
        // What scripts/simulate runs.
        .executableTarget(
            name: "simulate", dependencies: ["LonglineTestKit", argumentParser, nioCore], path: "Tests/SimulateDriver",
            swiftSettings: settings),
        .executableTarget(
            name: "ClientProcess",
            dependencies: [
                "LonglineClient", "LonglineWire", logging, nioCore, .product(name: "GRDB", package: "GRDB.swift"),
            ],
            path: "Tests/ClientProcess", swiftSettings: settings),
        .testTarget(
            name: "LonglineClientTests",
            dependencies: [
                "CSyncFaults", "ClientProcess", "HTTP3", "LonglineClient", "LonglineControl", "LonglineHTTP",
                "LonglineKeys", "LonglineLinks", "LonglineServer", "LonglineSession", "LonglineStore", "LonglineWire",
                "LonglineTestKit", "QUICEngine", "QUICTransport", httpTypes, logging, nioCore, nioEmbedded, nioHTTP1,
                nioPosix, nioSSL,
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "GRDB", package: "GRDB.swift"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LonglineControlTests",
            dependencies: [
                "HTTP3", "LonglineClient", "LonglineControl", "LonglineServer", "LonglineSession", "LonglineStore",
                "LonglineTestKit", "LonglineWire", "QUICEngine", "QUICTransport", crypto, hummingbird, httpTypes,
                jwtKit, logging, metrics, nioCore,
                nioEmbedded, nioPosix, nioSSL,
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "GRDB", package: "GRDB.swift"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LonglineServerTests",
            dependencies: [
                "HostNames", "LonglineHTTP", "LonglineLinks", "LonglineServer", "LonglineSession", "LonglineStore",
                "LonglineTestKit",
                "LonglineWire",
                "QUICEngine", crypto, jwtKit, logging, nioCore, nioHTTP1, nioPosix, nioSSL,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LonglineSettingsTests", dependencies: ["LonglineSettings"], swiftSettings: settings),
        // The tool as its users have it: as a process, and what its commands say.
        .testTarget(
            name: "LonglineCommandTests",
            dependencies: [
                "longline", "LonglineClient", "LonglineControl", "LonglineServer", "LonglineSettings", "LonglineStore",
                "LonglineTestKit", "LonglineWire", "QUICEngine", argumentParser, logging, nioCore, nioSSL,
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LonglineSessionTests",
            dependencies: [
                "LonglineSession", "LonglineStore", "LonglineWire", "LonglineTestKit", "QUICEngine", nioCore,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LonglineWireTests", dependencies: ["LonglineWire", "LonglineTestKit", nioCore],
            swiftSettings: settings),
        .executableTarget(
            name: "StoreCrashHelper", dependencies: ["LonglineStore", "LonglineWire", logging, nioCore],
            path: "Tests/StoreCrashHelper", swiftSettings: settings),
        .testTarget(
            name: "LonglineStoreTests",
            dependencies: [
                "LonglineStore", "StoreCrashHelper", "LonglineWire", "LonglineTestKit", logging, nioCore,
                .product(name: "GRDB", package: "GRDB.swift"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LonglineLinksTests",
            dependencies: [
                "LonglineLinks", "LonglineSession", "LonglineTestKit", "LonglineWire", "QUICEngine", "QUICTransport",
                nioCore, nioPosix,
            ],
            swiftSettings: settings),
        .target(name: "CSendFaults", path: "Tests/CSendFaults"),
        .target(name: "CSyncFaults", path: "Tests/CSyncFaults"),
        .testTarget(
            name: "QUICTransportTests",
            dependencies: [
                "CDatagramSocket", "CGnuTLS", "CSendFaults", "HostNames", "LonglineTestKit", "QUICEngine",
                "QUICTransport", logging, metrics, nioCore, nioPosix,
                .product(name: "MetricsTestKit", package: "swift-metrics"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "static-files", dependencies: ["HTTP3", "QUICTransport", httpTypes, nioCore, nioPosix],
            path: "Samples/StaticFiles", swiftSettings: settings),
        .executableTarget(
            name: "phone-app", dependencies: ["LonglineClient", "LonglineWire"], path: "Samples/PhoneApp",
            swiftSettings: settings),
        .testTarget(
            name: "HTTP3Tests",
            dependencies: [
                "CHTTP3Shim", "HTTP3", "LonglineTestKit", "QUICEngine", "QUICTransport", "static-files", httpTypes,
                logging, nioCore, nioPosix,
            ],
            swiftSettings: settings),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "CHTTP3Shim", "CQUICShim", "HTTP3", "LonglineSession", "LonglineTestKit", "LonglineWire", "QUICEngine",
                "QUICTransport", httpTypes, nioCore, nioEmbedded,
            ],
            path: "Tests/FuzzTargets", swiftSettings: settings),
        .testTarget(
            name: "FuzzTests", dependencies: ["FuzzTargets"], exclude: ["Corpus", "generate.py"],
            swiftSettings: settings),
        // The other side is by others, started from peers/ by the tests; scripts/test installs it.
        .testTarget(
            name: "InteropTests",
            dependencies: [
                "longline", "HTTP3", "LonglineClient", "LonglineSession", "LonglineTestKit", "LonglineWire",
                "QUICEngine", "QUICTransport", httpTypes, logging, nioCore, nioPosix,
            ], exclude: ["peers"],
            swiftSettings: settings),
        .testTarget(name: "LonglineTestKitTests", dependencies: ["LonglineTestKit"], swiftSettings: settings),
        .testTarget(
            name: "QUICEngineTests", dependencies: ["CGnuTLS", "CQUICShim", "LonglineTestKit", "QUICEngine"],
            swiftSettings: settings),
    ]
)

// The code samples of README.md and docs/, written there by scripts/lib/doc-samples, see every library of the package.
if Context.environment["LONGLINE_DOC_SAMPLES"] == "1" {
    let libraries = package.targets.filter { $0.type == .regular }.map { Target.Dependency.target(name: $0.name) }
    package.targets.append(
        .target(
            name: "DocSamples", dependencies: libraries + [nioCore], path: ".build/doc-samples",
            swiftSettings: [.swiftLanguageMode(.v6)]))
}

// What scripts/fuzz builds: it links only with libFuzzer, which brings `main`.
if Context.environment["LONGLINE_FUZZ"] == "1" {
    package.targets.append(
        .executableTarget(
            name: "fuzz", dependencies: ["FuzzTargets"], path: "Tests/FuzzDriver",
            swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])]))
}
