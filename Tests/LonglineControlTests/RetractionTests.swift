import Foundation
import HTTPTypes
import LonglineClient
import LonglineServer
import LonglineWire
import Testing

@testable import LonglineControl

@Suite("Messages that an app's moderators retract", .timeLimit(.minutes(2))) struct RetractionTests {
    /// Where a message stands.
    private struct Place {
        var epoch: String
        var offset: UInt64
    }

    private func publish(
        _ service: ControlService, _ channel: String, _ text: String, sender: String, key: String
    ) async throws -> Place {
        let answer = try await service.ask(
            .post, "/v1/channels/\(channel)/messages", key: key, json: #"{"sender":"\#(sender)","text":"\#(text)"}"#,
            headers: [.idempotencyKey: text])
        #expect(answer.status == 201)
        let offset = try #require(try answer.object()["offset"] as? NSNumber)
        return Place(epoch: try answer.string("epoch"), offset: offset.uint64Value)
    }

    private func retract(
        _ service: ControlService, _ channel: String, _ place: Place, _ more: String = "", key: String
    ) async throws -> ControlService.Answer {
        try await service.ask(
            .delete, "/v1/channels/\(channel)/messages/\(place.offset)?epoch=\(place.epoch)\(more)", key: key,
            on: .service)
    }

    private func entries(
        _ service: ControlService, _ channel: String, key: String
    ) async throws -> (epoch: String, entries: [[String: Any]]) {
        let answer = try await service.ask(.get, "/v1/channels/\(channel)/messages?order=oldest", key: key)
        return (try answer.string("epoch"), try answer.array("messages").compactMap { $0 as? [String: Any] })
    }

    private func kinds(_ service: ControlService, _ channel: String, key: String) async throws -> [String?] {
        try await entries(service, channel, key: key).entries.map { $0["kind"] as? String }
    }

    @Test("leave a room's log at once, whoever wrote them, and its members' devices hear of it")
    func room() async throws {
        try await withControl { service in
            let (key, moderator) = (try await service.appKey(), try await service.key([.retract]))
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/ann", key: key).status == 200)
            let client = try await service.client("ann", key: key)
            try await client.connect()
            var messages = client.messages.makeAsyncIterator()
            func next(_ kind: EntryKind) async throws -> Message {
                while let message = await messages.next() {
                    message.confirm()
                    if message.kind == kind { return message }
                }
                throw CancellationError()
            }
            let place = try await publish(service, "room:hall", "rude", sender: "bob", key: key)
            #expect(try await next(.message).text == "rude")
            let done = try await retract(service, "room:hall", place, "&reason=house+rules&sender=mod", key: moderator)
            #expect(done.status == 204)
            let retraction = try await next(.retracted)
            #expect(retraction.target?.offset == place.offset && retraction.text == "house rules")
            #expect(retraction.sender.description == "mod")
            let left = try await kinds(service, "room:hall", key: key)
            // It is done, and enters nothing more.
            #expect(try await retract(service, "room:hall", place, key: moderator).status == 204)
            #expect(try await kinds(service, "room:hall", key: key) == left)
            #expect(left.last == "retracted" && !left.contains("message"))
            await client.disconnect()
        }
    }

    @Test("leave a broadcast's log, and say of themselves that the app's server did it")
    func broadcast() async throws {
        try await withControl { service in
            let (key, moderator) = (try await service.appKey(), try await service.key([.retract]))
            let place = try await publish(service, "all:news", "rude", sender: "bob", key: key)
            #expect(try await retract(service, "all:news", place, key: moderator).status == 204)
            let left = try await entries(service, "all:news", key: key).entries
            #expect(left.count == 1 && left.first?["kind"] as? String == "retracted")
            #expect(left.first?["sender"] as? String == "app-server")
        }
    }

    @Test("leave both inboxes of a direct message, by the place in either", arguments: ["ann", "bob"])
    func direct(owner: String) async throws {
        try await withControl { service in
            let (key, moderator) = (try await service.appKey(), try await service.key([.retract]))
            _ = try await publish(service, "user:bob", "rude", sender: "ann", key: key)
            let (epoch, log) = try await entries(service, "user:\(owner)", key: key)
            let offset = try #require(log.first?["offset"] as? NSNumber)
            let place = Place(epoch: epoch, offset: offset.uint64Value)
            let named = try await retract(service, "user:\(owner)", place, "&sender=mod", key: moderator)
            #expect(named.status == 400, "it is the author's")
            for _ in 1...2 {
                #expect(try await retract(service, "user:\(owner)", place, key: moderator).status == 204)
            }
            for inbox in ["user:ann", "user:bob"] {
                #expect(try await kinds(service, inbox, key: key) == ["retracted"])
            }
        }
    }

    @Test("of many at once who retract the same message, one makes an entry and all have it done")
    func concurrent() async throws {
        try await withControl { service in
            let (key, moderator) = (try await service.appKey(), try await service.key([.retract]))
            let place = try await publish(service, "all:news", "rude", sender: "bob", key: key)
            try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<8 {
                    group.addTask { try await retract(service, "all:news", place, key: moderator).status }
                }
                for try await status in group { #expect(status == 204) }
            }
            #expect(try await kinds(service, "all:news", key: key) == ["retracted"])
        }
    }

    @Test("are what the request names, and nothing else")
    func checked() async throws {
        try await withControl { service in
            let (key, moderator) = (try await service.appKey(), try await service.key([.retract]))
            let place = try await publish(service, "all:news", "one", sender: "bob", key: key)
            let path = "/v1/channels/all:news/messages"
            let long = String(repeating: "x", count: FrameLimits.maximumRemark + 1)
            for (rest, status) in [
                ("/\(place.offset)", 400), ("/\(place.offset)?epoch=x", 400), ("/\(place.offset)?epoch=1", 404),
                ("/\(place.offset)?epoch=\(String(repeating: "9", count: 20))", 404), ("/+1?epoch=\(place.epoch)", 400),
                ("/0?epoch=\(place.epoch)", 400), ("/x?epoch=\(place.epoch)", 400),
                ("/\(UInt64.max)?epoch=\(place.epoch)", 400), ("/\(place.offset + 9)?epoch=\(place.epoch)", 404),
                ("/\(place.offset)?epoch=\(place.epoch)&reason=\(long)", 413),
                ("/\(place.offset)?epoch=\(place.epoch)&sender=a%2Fb", 400),
                ("/\(place.offset)?epoch=\(place.epoch)&resaon=x", 400),
            ] {
                #expect(try await service.ask(.delete, path + rest, key: moderator).status == status, "\(rest)")
            }
            for channel in ["all:other", "room:none", "user:nobody"] {
                #expect(try await retract(service, channel, place, key: moderator).status == 404, "\(channel)")
            }
            let elsewhere = try await service.key([.retract], tenant: try TenantID("other"))
            #expect(try await retract(service, "all:news", place, key: elsewhere).status == 404)
            #expect(try await kinds(service, "all:news", key: key) == ["message"])
            #expect(try await retract(service, "all:news", place, key: moderator).status == 204)
            // What a retraction leaves is no message.
            let (epoch, log) = try await entries(service, "all:news", key: key)
            let offset = try #require(log.last?["offset"] as? NSNumber)
            let retraction = Place(epoch: epoch, offset: offset.uint64Value)
            #expect(try await retract(service, "all:news", retraction, key: moderator).status == 400)
        }
    }
}
