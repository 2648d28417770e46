import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let news = identifier { try ChannelID("all/news") }

/// What is broadcast to all of a tenant, over two event loops.
@Suite(.timeLimit(.minutes(1))) struct BroadcastTests {
    /// Connects somebody whose token has these words in its scope.
    private func connected(
        _ server: TestServer, _ user: String, _ device: String = "phone", scope: String, loop: Int = 0
    ) async throws -> TestDevice {
        let claim = try ScopeClaim(scope)
        let token = try await server.issuer.token(user, device, scopes: claim.scopes, grants: claim.grants)
        let device = try await server.device(user, device, loop: loop)
        _ = try await device.connect(credential: .token(token))
        return device
    }

    private func refusal(_ device: TestDevice, _ text: String, to channel: ChannelID = news) async throws
        -> RefusalCode?
    {
        if case .refused(let refused) = try await device.publish(text, to: channel) { return refused.code }
        return nil
    }

    @Test("everybody hears it, on every loop, also what is newer than the session; a stranger may not say anything")
    func everybodyHears() async throws {
        try await withServer { server in
            let listeners = try await [
                server.connected("bob"), server.connected("bob", "tablet", loop: 1), server.connected("eve", loop: 1),
            ]
            let speaker = try await connected(server, "ann", scope: "receive publish:all/news")
            #expect(try await refusal(listeners[0], "me too") == .forbidden, "publish alone does not reach everybody")
            #expect(try await refusal(speaker, "elsewhere", to: ChannelID("all/other")) == .forbidden)
            for text in ["one", "two"] { #expect(try await refusal(speaker, text) == nil) }
            for device in listeners + [speaker] {
                #expect(try await device.text(news) == "one")
                #expect(try await device.text(news) == "two")
            }
            let deaf = try await connected(server, "kim", scope: "receive:user/*")
            #expect(try await refusal(speaker, "three") == nil)
            #expect(try await listeners[2].text(news) == "three")
            try await speaker.message("ping", to: UserID("kim"))
            #expect(deaf.untaken(news).isEmpty)
        }
    }

    @Test("a new device begins at the head, and later gets what it missed; the past is history")
    func beginsAtTheHead() async throws {
        try await withServer { server in
            let speaker = try await connected(server, "ann", scope: "receive publish:all/*")
            for index in 0..<5 { #expect(try await refusal(speaker, "old \(index)") == nil) }
            let device = try await server.device("bob")
            let connected = try await device.connect()
            let answer = try #require(connected.channels.first { $0.channel == news })
            #expect(answer.recovery == .fresh)
            let skip = try await device.next { frame -> Skip? in if case .skip(let skip) = frame { skip } else { nil } }
            #expect(skip == Skip(previous: 0, to: answer.head.offset, reason: .notEntitled))
            let page = try await device.history(news)
            #expect(page.items.count == 5 && !page.head.more && page.head.start == 0)
            try await device.drop()
            // It never confirmed anything, and misses nothing all the same.
            for index in 0..<3 { #expect(try await refusal(speaker, "new \(index)") == nil) }
            let again = try await server.device("bob", loop: 1)
            again.producer = device.producer
            again.connectNumber = 2
            _ = try await again.connect()
            for index in 0..<3 { #expect(try await again.text(news) == "new \(index)") }
        }
    }

    @Test("what is broadcast for the first time while a device loads its channels reaches it")
    func whileLoading() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let speaker = try await connected(server, "ann", scope: "publish:all/news receive")
            let late = try await server.device("bob", loop: 1)
            try await late.connect(pausing: store, server) { _ = try await speaker.publish("first of all", to: news) }
            #expect(try await late.text(news) == "first of all")
        }
    }
}
