import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

@Suite("What the control layer says") struct AccessAnswerTests {
    static func json(
        version: String = "1", points: String = #"{"host":"one","port":1,"transports":["quic"],"migration_safe":true}"#,
        issued: String = "1000", expires: String = "301000", more: String = ""
    ) -> [UInt8] {
        Array(
            #"{"version":\#(version),"access_points":[\#(points)],"issued_at":\#(issued),"expires_at":\#(expires)\#(more)}"#
                .utf8)
    }

    @Test("takes points, lifetime, heartbeat and back-off, and leaves alone what it doesn't know")
    func whole() throws {
        let answer = try AccessAnswer(
            parsing: Self.json(
                points: #"""
                    {"host":"one","port":1,"transports":["quic","carrier-pigeon"],"migration_safe":false,"new":[1]},
                    {"host":"tcp","port":2,"transports":["tcp"]},
                    {"host":"::1","port":3,"transports":["quic"]},
                    {"host":"one","port":1,"transports":["quic"]}
                    """#,
                more: #"""
                    ,"heartbeat":{"initial":30000,"answer_timeout":4000,"minimum":5000,"idle_timeout":600000},
                    "back_off":{"base":100,"maximum":2000,"reset_after":300},"limits":{},"signature":"x","later":{"a":[{}]}
                    """#))
        #expect(
            answer.points == [
                .init(accessPoint: AccessPoint(host: "one", port: 1), isMigrationSafe: false),
                .init(accessPoint: AccessPoint(host: "::1", port: 3), isMigrationSafe: true),
            ])
        #expect(answer.lifetime == .seconds(300))
        #expect(answer.heartbeat == .init(initial: .seconds(30), answerTimeout: .seconds(4)))
        #expect(
            answer.backOff
                == BackOffPolicy(
                    base: .milliseconds(100), maximum: .seconds(2), resetAfter: .milliseconds(300)))
    }

    @Test("leaves out an access point that is none, and takes the others")
    func badPoint() throws {
        let answer = try AccessAnswer(
            parsing: Self.json(
                points: #"""
                    {"host":"https://chat.example.com","port":443,"transports":["quic"]},
                    {"host":"münchen.example","port":443,"transports":["quic"]},
                    {"host":"one:443","port":443,"transports":["quic"]},
                    {"host":"one","port":0,"transports":["quic"]},
                    {"host":"one","port":1,"transports":["quic"]}
                    """#))
        #expect(answer.points.map(\.accessPoint) == [AccessPoint(host: "one", port: 1)])
        #expect(answer.leftOut == 4)
    }

    @Test("brings what is out of bounds within them")
    func bounds() throws {
        let most = "18446744073709551615"
        let answer = try AccessAnswer(
            parsing: Self.json(
                points: (1...40).map { #"{"host":"n\#($0)","port":1,"transports":["quic"]}"# }.joined(separator: ","),
                issued: "0", expires: most,
                more: #"""
                    ,"heartbeat":{"initial":\#(most),"answer_timeout":0,"minimum":5000,"idle_timeout":60000},
                    "back_off":{"base":0,"maximum":0,"reset_after":\#(most)}
                    """#))
        #expect(answer.points.count == AccessAnswer.maximumPoints)
        #expect(answer.lifetime == AccessAnswer.longestLifetime)
        #expect(answer.heartbeat == .init(initial: .seconds(40), answerTimeout: .milliseconds(500)))
        let backOff = try #require(answer.backOff)
        #expect(backOff.base == .milliseconds(1) && backOff.maximum == .milliseconds(1))
        #expect(backOff.resetAfter == .seconds(3_600))
    }

    @Test(
        "refuses by name what it can't read",
        arguments: [
            [], Array("null".utf8), Array("[]".utf8), Array("{".utf8), Array("<html>".utf8), [0xff, 0xfe],
            json(points: ""), json(points: "null"), json(points: "{}"),
            json(points: #"{"host":"","port":1,"transports":["quic"]}"#),
            json(points: #"{"host":"a b","port":1,"transports":["quic"]}"#),
            json(points: #"{"host":"one","port":0,"transports":["quic"]}"#),
            json(points: #"{"host":"one","port":65536,"transports":["quic"]}"#),
            json(points: #"{"host":"one","port":1.5,"transports":["quic"]}"#),
            json(points: #"{"host":"one","port":1,"transports":["tcp"]}"#),
            json(issued: "-1"), json(issued: "2", expires: "1"), json(expires: #""soon""#),
            json(version: "0") + [UInt8(ascii: "}")], json(version: #""1""#), json(version: "-1"),
            Array(String(repeating: "[", count: 30_000).utf8), Array(repeating: UInt8(ascii: " "), count: 65_537),
        ] as [[UInt8]])
    func malformed(bytes: [UInt8]) {
        let error = #expect(throws: ClientError.self) { try AccessAnswer(parsing: bytes) }
        #expect(error?.code == .controlAnswerInvalid)
    }

    @Test("names a version of which it knows nothing")
    func version() {
        let error = #expect(throws: ClientError.self) {
            try AccessAnswer(parsing: Array(#"{"version":2,"elsewhere":true}"#.utf8))
        }
        #expect(error?.code == .controlVersionUnsupported && error?.advice == "upgrade the app")
    }

    @Test(
        "says what is wrong with a control layer's address",
        arguments: [
            "", "rt.example", "http://rt.example", "https://", "https://rt.example/x", "https://h:0", "https://a@h",
        ])
    func address(url: String) {
        let configuration = LonglineClient.Configuration(control: [ControlService(url: url)]) { "" }
        let error = #expect(throws: ClientError.self) { try LonglineClient(configuration: configuration) }
        #expect(error?.code == .invalidConfiguration)
    }

    @Test("a configuration needs an access point or a control layer, and names no control layer twice")
    func configuration() {
        func code(_ control: [ControlService], _ points: [AccessPoint] = []) -> ClientError.Code? {
            do throws(ClientError) {
                try LonglineClient.Configuration(control: control, accessPoints: points) { "" }.validate()
            } catch { return error.code }
            return nil
        }
        let service = ControlService(url: "https://rt.example:8443/")
        #expect(code([]) == .invalidConfiguration)
        #expect(code([service, service]) == .invalidConfiguration)
        #expect(code([ControlService(url: "https://h", http3Port: 0)]) == .invalidConfiguration)
        #expect(code([service]) == nil)
        #expect(code([], [AccessPoint(host: "one", port: 1)]) == nil)
    }
}

@Suite("How long an answer holds") struct AccessBookTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
    private let wall: UInt64 = 1_700_000_000_000
    private let url = "https://rt.example"

    private func stored(_ receivedAt: UInt64, user: UserID? = nil) -> StoredAccess {
        StoredAccess(answer: AccessAnswerTests.json(), control: url, user: user, receivedAt: receivedAt)
    }

    private func book(_ stored: StoredAccess?, user: UserID? = nil, wall: UInt64) -> AccessBook {
        AccessBook(stored, routes: [], controls: [url], user: user, now: start, wall: wall)
    }

    private func due(_ book: AccessBook, after seconds: Int64) -> Bool {
        book.isDue(now: start + .seconds(seconds), hasOther: false, isReturn: false)
    }

    private func received(_ book: inout AccessBook) throws {
        let way = ControlWay(
            control: try ControlEndpoint(ControlService(url: url)), transport: .http3, port: 443)
        _ = book.received(
            FetchedAccess(
                answer: try AccessAnswer(parsing: AccessAnswerTests.json()), bytes: AccessAnswerTests.json(), way: way,
                overtaken: []), user: nil, now: start, wall: wall)
    }

    @Test("an answer is asked for again when its lifetime is over, counted from when it came, whatever the clocks say")
    func lifetime() throws {
        var book = book(nil, wall: wall)
        #expect(due(book, after: 0))
        // Issued and expiring in 1970 by the service's clock: only the difference counts.
        try received(&book)
        #expect(!due(book, after: 299) && due(book, after: 300))
        #expect(book.answer != nil, "what is over goes on to be the last answer")
    }

    @Test("what an earlier process kept holds for the rest of its lifetime")
    func restart() {
        let book = book(stored(wall - 100_000), wall: wall)
        #expect(!due(book, after: 199) && due(book, after: 200))
        #expect(book.age(wall: wall) == .seconds(100))
    }

    @Test("a wall clock that went back makes nothing live longer: the answer is asked for again")
    func clockJumps() {
        #expect(due(book(stored(wall + 1), wall: wall), after: 0))
        #expect(due(book(stored(.max), wall: wall), after: 0))
        #expect(due(book(stored(0), wall: .max), after: 0))
        #expect(book(stored(.max), wall: wall).answer != nil)
    }

    @Test("an answer for another user, of another service or that can't be read is of no use")
    func foreign() throws {
        let (ann, bob) = (try UserID("ann"), try UserID("bob"))
        #expect(book(stored(wall, user: ann), user: ann, wall: wall).answer != nil)
        #expect(book(stored(wall, user: ann), user: bob, wall: wall).answer == nil)
        var other = stored(wall)
        other.control = "https://staging.example"
        #expect(book(other, wall: wall).answer == nil)
        other = stored(wall)
        other.answer = [1, 2]
        #expect(book(other, wall: wall).answer == nil)
    }

    @Test(
        "after a question in vain the last answer does for a while, jittered, and longer where the service asked for it",
        arguments: [UInt64(1), 2, 3])
    func rest(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var book = book(stored(0), wall: wall)
        #expect(due(book, after: 0))
        book.failed(retryAfter: .zero, now: start, random: &random)
        #expect(!due(book, after: 14) && due(book, after: 30), "seed \(seed)")
        book.failed(retryAfter: .seconds(100), now: start, random: &random)
        #expect(!due(book, after: 99) && due(book, after: 100), "seed \(seed)")
        // Without an answer there is nothing to do but ask, once the back-off's time is over.
        var nothing = self.book(nil, wall: wall)
        nothing.failed(retryAfter: .seconds(5), now: start, random: &random)
        #expect(due(nothing, after: 0))
        #expect(nothing.mustWait(now: start + .seconds(4)) && !nothing.mustWait(now: start + .seconds(5)))
        #expect(!nothing.isDue(now: start, hasOther: true, isReturn: false), "there are others to go to")
    }

    @Test("that no access point could be reached is forgotten in another network, and what a node said isn't")
    func otherNetwork() {
        var book = book(stored(wall), wall: wall)
        #expect(!due(book, after: 0))
        book.doubt(.unreached)
        #expect(due(book, after: 0))
        book.networkChanged()
        #expect(!due(book, after: 0))
        book.doubt(.sentAway)
        book.doubt(.unreached)
        book.networkChanged()
        #expect(due(book, after: 0))
    }

    @Test("who only comes back by another path needs no fresh answer, unless a node sent it away")
    func returning() {
        var book = book(stored(0), wall: wall)
        #expect(!book.isDue(now: start, hasOther: false, isReturn: true))
        book.doubt(.sentAway)
        #expect(book.isDue(now: start, hasOther: false, isReturn: true))
        #expect(self.book(nil, wall: wall).isDue(now: start, hasOther: false, isReturn: true))
    }
}
