import Foundation
import Logging
import LonglineClient
import LonglineWire
import Testing

/// The operators' page in a real browser, of a real server with real clients.
@Suite(
    "The dashboard in Chromium", .timeLimit(.minutes(5)),
    .enabled(if: Chromium.isInstalled, "\(Chromium.howToInstall)"))
struct DashboardTests {
    /// Where to save pictures of it, light and dark, after some minutes of traffic: without `.png`.
    private static let picture = ProcessInfo.processInfo.environment["LONGLINE_DASHBOARD_PICTURE"]

    /// The page's numbers, by title and line.
    private static let reader = """
        window.figure = (title, line) => {
            const section = [...document.querySelectorAll("section")]
                .find(section => section.querySelector("h2").textContent === title);
            const entry = [...section.querySelectorAll(".legend span")]
                .find(entry => entry.textContent.startsWith(line + " "));
            return Number(entry.querySelector("b").textContent.replace(/[^0-9.]/g, "") || NaN);
        };
        window.cells = () => [...document.querySelectorAll("tbody td")].map(cell => cell.textContent);
        true
        """

    private func client(_ user: String, of server: ToolServer) async throws -> LonglineClient {
        let token = try await server.run("token", "--user", user, "--device", "phone")
        var configuration = LonglineClient.Configuration(
            accessPoints: [AccessPoint(host: "127.0.0.1", port: server.port)], trust: .pinnedPublicKey([server.pin])
        ) { token }
        configuration.backOff = BackOffPolicy(base: .milliseconds(10), maximum: .milliseconds(100))
        configuration.logger = Logger(label: "client") { _ in SwiftLogNoOpLogHandler() }
        return try LonglineClient(configuration: configuration)
    }

    private func clients(_ count: Int, of server: ToolServer) async throws -> [LonglineClient] {
        var clients: [LonglineClient] = []
        for number in 1...count { clients.append(try await client("user-\(number)", of: server)) }
        return clients
    }

    /// Everybody writes to the next one, again and again, until the task is cancelled.
    private func talk(_ clients: [LonglineClient]) -> Task<Void, Never> {
        Task {
            await withTaskGroup(of: Void.self) { group in
                for (index, client) in clients.enumerated() {
                    group.addTask {
                        for await message in client.messages { message.confirm() }
                    }
                    group.addTask {
                        guard let other = try? UserID("user-\((index + 1) % clients.count + 1)") else { return }
                        while !Task.isCancelled {
                            // Waves of a minute.
                            let wave = 1.2 + sin(Date().timeIntervalSince1970 / 10 + Double(index))
                            try? await Task.sleep(for: .milliseconds(Int(60 * wave)))
                            _ = try? await client.send("hello", to: .user(other)).acknowledged()
                        }
                    }
                }
            }
        }
    }

    @Test("Its numbers move with clients and messages, and nothing goes wrong in it")
    func figures() async throws {
        let server = try await ToolServer()
        try await Chromium.run(trusting: [server.pin]) { chromium in
            let page = try await chromium.open("https://localhost:\(server.adminPort)/", height: 950)
            #expect(try await page.value(Self.reader, as: Bool.self))
            try await page.wait(until: #"document.getElementById("state").textContent.startsWith("as of")"#)
            try await page.wait(until: #"figure("Connections", "QUIC") === 0"#)

            // What the clock was set back from is left out, and nothing is there twice.
            let times = try await page.value(
                "joined([9100, 9200, 300].map(time => ({ time })), [300, 400].map(time => ({ time }))).map(s => s.time)",
                as: [Int].self)
            #expect(times == [300, 400])

            let clients = try await clients(Self.picture == nil ? 3 : 32, of: server)
            for client in clients { try await client.connect() }
            try await page.wait(
                until:
                    #"figure("Connections", "QUIC") === \#(clients.count) && figure("Sessions", "sessions") === \#(clients.count)"#
            )
            let talk = talk(clients)
            try await page.wait(
                until: """
                    figure("Messages a second", "published") > 0 && figure("Messages a second", "delivered") > 0
                        && figure("Publish to deliver", "half within") > 0
                    """)
            #expect(try await page.value("cells().length", as: Int.self) == 8)
            try await page.wait(until: #"cells()[2] === "\#(clients.count)" && cells()[7] === "open""#)
            // Every chart has a line at least, but for heartbeats: a client's first two are 30 s apart.
            let empty = try await page.value(
                """
                [...document.querySelectorAll("section")].filter(section => section.querySelector("svg"))
                    .filter(section => ![...section.querySelectorAll("svg path")].some(path => path.getAttribute("d")))
                    .map(section => section.querySelector("h2").textContent)
                """,
                as: [String].self)
            #expect(empty.filter { $0 != "Heartbeat interval" } == [])
            if let picture = Self.picture { try await draw(picture, page, clients) }

            talk.cancel()
            await talk.value
            try await page.wait(until: #"figure("Messages a second", "published") === 0"#)
            for client in clients { await client.disconnect() }
            try await page.wait(until: #"figure("Connections", "QUIC") === 0 && figure("Sessions", "sessions") === 0"#)

            let seen = try await page.seen()
            #expect(seen.problems == [])
            #expect(seen.responses.count > 4)
            for response in seen.responses {
                #expect(response.status == 200 && response.protocolName == "h2", "\(response)")
                #expect(response.url.hasPrefix("https://localhost:\(server.adminPort)/"), "\(response)")
            }
        }
        await server.stop()
    }

    /// Lets charts fill, with clients that move and come back.
    private func draw(_ picture: String, _ page: Chromium.Page, _ clients: [LonglineClient]) async throws {
        for round in 0..<33 {
            let some = clients.indices.filter { ($0 + round) % 9 == 0 }
            for index in some.dropFirst() { try? await clients[index].migrate() }
            if let first = some.first, round % 3 == 0 {
                await clients[first].disconnect()
                try await clients[first].connect()
                // The stream that was read so far ended with the session.
                Task { for await message in clients[first].messages { message.confirm() } }
            }
            try await Task.sleep(for: .seconds(3))
            #expect(try await page.value("cells().length", as: Int.self) == 8)
        }
        try await page.saveScreenshot(to: picture + ".png")
        try await page.saveScreenshot(to: picture + "-dark.png", dark: true)
    }
}
