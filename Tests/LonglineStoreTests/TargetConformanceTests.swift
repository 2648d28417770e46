import LonglineStore
import LonglineWire
import NIOCore
import Testing

/// Entries that name another: edits, retractions, reactions, requests and replies.
@Suite struct TargetConformanceTests {
    private func remark(
        _ kind: PublishKind, by sender: String = "alice", to channel: ChannelID? = nil, recipient: String? = nil,
        id: PublishID, _ text: String = "", timeToLive: UInt64 = 0
    ) -> AppendRequest {
        var request = request(
            sender, to: channel, recipient: recipient, id: id, after: 0, timeToLive: timeToLive, text)
        request.publish.kind = kind
        return request
    }

    private func refusal(_ store: AnyStore, _ request: AppendRequest) async throws -> RefusalCode? {
        try await store.append(request).refused?.code
    }

    private func entries(_ store: AnyStore, _ channel: ChannelKey, now: UInt64 = 0) async throws -> [Entry] {
        try await store.all(channel, now: now).compactMap(\.entry)
    }

    private func texts(_ store: AnyStore, _ channel: ChannelKey, now: UInt64 = 0) async throws -> [String] {
        try await store.all(channel, now: now).map { item in
            guard case .entry(let entry) = item, entry.kind != .message else { return item.text }
            return "\(entry.kind) \(String(buffer: entry.payload))"
        }
    }

    @Test("each copy of what is said of a direct message names it in its own inbox", arguments: StoreKind.allCases)
    func eachCopyNamesTheMessageInItsOwnInbox(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await store.enter(request("bob", id: 1, "note"))
            let record = try await store.append(request(recipient: "bob", id: 1, "helo"))
            let sent = try #require(record.published).position
            let received = try #require(record.copy).position
            try await store.enter(remark(.edit(sent), recipient: "bob", id: 2, "hello"))
            try await store.enter(remark(.react(received), by: "bob", recipient: "alice", id: 2, "+1"))
            let alices = try await entries(store, inbox("alice"))
            #expect(alices.map(\.kind) == [.message, .edited, .reacted])
            #expect(alices.map(\.target) == [nil, sent.offset, sent.offset])
            #expect(alices[2].sender == user("bob") && alices[2].origin != nil)
            let bobs = try await entries(store, inbox("bob"))
            #expect(bobs.map(\.kind) == [.message, .message, .edited, .reacted])
            #expect(bobs.map(\.target) == [nil, nil, received.offset, received.offset])
            // Both stay, each in its place.
            #expect(try await texts(store, inbox("bob")) == ["note", "helo", "edited hello", "reacted +1"])
        }
    }

    @Test("what is counted of a range is messages, requests and replies that are there", arguments: StoreKind.allCases)
    func whatIsCountedOfARange(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let first = try await store.append(request(recipient: "bob", id: 1, "one"))
            let own = try #require(first.published).position
            let copy = try #require(first.copy).position
            try await store.enter(request("carol", recipient: "bob", id: 1, "hers"))
            let second = try await store.enter(request(recipient: "bob", id: 2, "two")).position
            try await store.enter(remark(.edit(own), recipient: "bob", id: 3, "1"))
            try await store.enter(remark(.request, recipient: "bob", id: 4, "?"))
            try await store.enter(remark(.retract(second), recipient: "bob", id: 5))
            let end = try #require(try await store.head(of: inbox("bob"))).position.offset
            func count(
                _ authors: Authors, after: Offset = 0, upTo: Offset, limit: Int = 9, now: UInt64 = 0
            ) async throws -> Int {
                try await store.countMessages(
                    in: inbox("bob"), after: after, upTo: upTo, by: authors, limit: limit, now: now)
            }
            #expect(try await count(.only(user("alice")), upTo: end) == 2)
            #expect(try await count(.only(user("alice")), after: copy.offset, upTo: end) == 1)
            #expect(try await count(.only(user("alice")), upTo: copy.offset) == 1)
            #expect(try await count(.allBut(user("bob")), upTo: end) == 3)
            #expect(try await count(.allBut(user("alice")), upTo: end) == 1)
            #expect(try await count(.allBut(user("bob")), upTo: end, limit: 1) == 1)
            let brief = try await store.append(request(recipient: "bob", id: 6, timeToLive: 1_000, "brief"))
            let last = try #require(brief.copy).position.offset
            #expect(try await count(.only(user("alice")), upTo: last) == 3)
            #expect(try await count(.only(user("alice")), upTo: last, now: .max) == 2)
        }
    }

    @Test("a retraction takes the message and its edits out of both logs", arguments: StoreKind.allCases)
    func aRetractionTakesTheMessageAndItsEditsOutOfBothLogs(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let sent = try await store.enter(request(recipient: "bob", id: 1, "secret")).position
            try await store.enter(request(recipient: "bob", id: 2, "other"))
            try await store.enter(remark(.edit(sent), recipient: "bob", id: 3, "secrets"))
            // Into whatever remembers the last entries.
            _ = try await texts(store, inbox("bob"))
            try await store.enter(remark(.retract(sent), recipient: "bob", id: 4, "oops"))
            for name in ["alice", "bob"] {
                let expected = ["<retracted>", "other", "<retracted>", "retracted oops"]
                #expect(try await texts(store, inbox(name)) == expected, "\(name)")
                let list = try await store.channels(after: 0, limit: 10).channels
                #expect(list.first { $0.key == inbox(name) }?.bytes == 9, "the erased bytes don't count")
                #expect(list.first { $0.key == inbox(name) }?.entries == 4)
                let range = LogRange(
                    after: 0, upTo: nil, direction: .older, maximumEntries: 100, maximumBytes: 1_000)
                let back = try await store.page(inbox(name), range, now: 0)
                #expect(back.items.map(\.end) == (try await store.all(inbox(name))).map(\.end))
            }
            // Sent again, it is the same retraction.
            let again = try await store.append(remark(.retract(sent), recipient: "bob", id: 4, "oops"))
            #expect(!again.isEntered && again.published != nil)
            // There is nothing left to say anything of.
            for said in [PublishKind.edit(sent), .retract(sent), .react(sent)] {
                #expect(try await refusal(store, remark(said, recipient: "bob", id: 5, "x")) == .unknownTarget)
            }
            // What is trimmed then is what was counted.
            #expect(try await store.trim(inbox("bob"), keep: Retention(entries: 0)).bytes == 9)
        }
    }

    @Test("only the author edits and retracts; whoever may publish there reacts", arguments: StoreKind.allCases)
    func onlyTheAuthorEditsAndRetracts(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let hall = ChannelID.room(room("hall"))
            for name in ["alice", "bob"] { _ = try await store.join(room("hall"), by: device(name), create: true) }
            let message = try await store.enter(request(to: hall, id: 1, "hi")).position
            for said in [PublishKind.edit(message), .retract(message)] {
                #expect(try await refusal(store, remark(said, by: "bob", to: hall, id: 1, "x")) == .invalidTarget)
            }
            try await store.enter(remark(.react(message), by: "bob", to: hall, id: 1, "+1"))
            let reaction = try #require(try await entries(store, roomKey("hall")).last)
            #expect(reaction.kind == .reacted && reaction.target == message.offset)
            // An empty one takes it back; another device of the author's may edit.
            try await store.enter(remark(.react(message), by: "bob", to: hall, id: 2))
            var edit = request(to: hall, id: 1, after: 0, device: "tablet", "hi!")
            edit.publish.kind = .edit(message)
            try await store.enter(edit)
            // Not a message: a reaction, a join.
            let place = Position(epoch: message.epoch, offset: reaction.offset)
            #expect(try await refusal(store, remark(.retract(place), by: "bob", to: hall, id: 3)) == .invalidTarget)
            let first = try #require(try await entries(store, roomKey("hall")).first)
            let join = Position(epoch: message.epoch, offset: first.offset)
            #expect(try await refusal(store, remark(.react(join), to: hall, id: 2, "x")) == .invalidTarget)
            // A stranger learns nothing, and who came later does not see it.
            #expect(
                try await refusal(store, remark(.react(message), by: "eve", to: hall, id: 1, "x")) == .unknownChannel)
            _ = try await store.join(room("hall"), by: device("carol"), create: false)
            #expect(
                try await refusal(store, remark(.react(message), by: "carol", to: hall, id: 1, "x")) == .unknownTarget)
        }
    }

    @Test("what is not there, of another epoch or of another conversation is refused", arguments: StoreKind.allCases)
    func whatIsNotThereIsRefused(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let sent = try await store.enter(request(recipient: "bob", id: 1, "x")).position
            let note = try await store.enter(request(id: 2, "note")).position
            let brief = try await store.enter(request(recipient: "bob", id: 3, timeToLive: 50, "brief")).position
            func react(_ position: Position, _ recipient: String? = "bob") async throws -> RefusalCode? {
                try await refusal(store, remark(.react(position), recipient: recipient, id: 9, "+"))
            }
            #expect(try await react(Position(epoch: sent.epoch &+ 1, offset: sent.offset)) == .unknownTarget)
            let absent: [Offset] = [0, sent.offset + 1, brief.offset + 1_000, FrameLimits.maximumNumber]
            for offset in absent {
                #expect(try await react(Position(epoch: sent.epoch, offset: offset)) == .unknownTarget, "\(offset)")
            }
            #expect(try await react(sent, "carol") == .invalidTarget)
            #expect(try await react(sent, nil) == .invalidTarget)
            #expect(try await react(note) == .invalidTarget)
            clock.advance(50)
            #expect(try await react(brief) == .unknownTarget)
            // A note is one's own, with or without oneself as the recipient.
            try await store.enter(remark(.edit(note), recipient: "alice", id: 4, "notes"))
            _ = try await store.trim(inbox("alice"), keep: Retention(entries: 1))
            #expect(try await react(sent) == .unknownTarget)
        }
    }

    @Test("an edit lasts as long as its message, and there are so many", arguments: StoreKind.allCases)
    func anEditLastsAsLongAsItsMessage(_ kind: StoreKind) async throws {
        let clock = TestClock()
        var limits = StoreLimits()
        limits.editsPerMessage = 3
        try await withStore(kind, limits: limits, clock: clock) { store async throws in
            let brief = try await store.enter(request(recipient: "bob", id: 1, timeToLive: 100, "brief")).position
            for id in 2...4 as ClosedRange<PublishID> {
                try await store.enter(remark(.edit(brief), recipient: "bob", id: id, "edit \(id)", timeToLive: 9_000))
            }
            #expect(try await refusal(store, remark(.edit(brief), recipient: "bob", id: 5, "x")) == .tooMany)
            try await store.enter(remark(.retract(brief), recipient: "bob", id: 5, timeToLive: 10))
            let kept = try await entries(store, inbox("bob"), now: clock.now + 100)
            #expect(kept.map(\.kind) == [.retracted], "a retraction is never over")
        }
    }

    @Test("a remark is short", arguments: StoreKind.allCases)
    func aRemarkIsShort(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let note = try await store.enter(request(id: 1, "note")).position
            let long = String(repeating: "x", count: FrameLimits.maximumRemark + 1)
            for said in [PublishKind.react(note), .retract(note)] {
                #expect(try await refusal(store, remark(said, id: 2, long)) == .payloadTooLarge)
            }
            try await store.enter(remark(.edit(note), id: 2, long))
            try await store.enter(remark(.react(note), id: 3, String(long.dropLast())))
        }
    }

    @Test("a request is answered by whom it was put to, in time", arguments: StoreKind.allCases)
    func aRequestIsAnsweredByWhomItWasPutTo(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            #expect(try await refusal(store, remark(.request, id: 1, "?")) == .unknownRecipient)
            #expect(try await refusal(store, remark(.request, recipient: "alice", id: 1, "?")) == .unknownRecipient)
            let asked = try await store.append(remark(.request, recipient: "bob", id: 1, "?", timeToLive: 100))
            let question = try #require(asked.copy).position
            let own = try #require(asked.published).position
            #expect(try await refusal(store, remark(.reply(own), recipient: "bob", id: 2, "!")) == .invalidTarget)
            #expect(
                try await refusal(store, remark(.edit(question), by: "bob", recipient: "alice", id: 1))
                    == .invalidTarget)
            try await store.enter(remark(.reply(question), by: "bob", recipient: "alice", id: 1, "!"))
            let reply = try #require(try await entries(store, inbox("alice")).last)
            #expect(reply.kind == .reply && reply.target == own.offset)
            #expect(reply.expiry == clock.now + 100, "nobody waits for longer")
            clock.advance(100)
            #expect(
                try await refusal(store, remark(.reply(question), by: "bob", recipient: "alice", id: 2))
                    == .unknownTarget)
        }
    }

    @Test("what one inbox trimmed is still named in the other", arguments: StoreKind.allCases)
    func whatOneInboxTrimmedIsStillNamedInTheOther(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let outcome = try await store.append(request(recipient: "bob", id: 1, "old"))
            let sent = try #require(outcome.published).position
            let received = try #require(outcome.copy).position
            try await store.enter(request(recipient: "bob", id: 2, "new"))
            _ = try await store.trim(inbox("bob"), keep: Retention(entries: 1))
            try await store.enter(remark(.retract(sent), recipient: "bob", id: 3))
            // A device may have it, although the log does not.
            #expect(try await entries(store, inbox("bob")).last?.target == received.offset)
            #expect(try await texts(store, inbox("bob")) == ["new", "retracted "])
        }
    }

    @Test(
        "what a block kept back is never named in the other inbox, also once that is trimmed",
        arguments: StoreKind.allCases)
    func whatABlockKeptBackIsNeverNamed(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            func block(_ isBlocked: Bool) async throws {
                _ = try await store.set(.block(isBlocked), of: .user(user("alice")), for: user("bob"), in: tenant)
            }
            try await store.enter(request(recipient: "bob", id: 1, "before"))
            try await block(true)
            let unheard = try await store.enter(request(recipient: "bob", id: 2, "unheard")).position
            try await block(false)
            let heard = try await store.append(request(recipient: "bob", id: 3, "heard"))
            _ = try await store.trim(inbox("bob"), keep: Retention(entries: 0))
            // What it says would be heard by an edit of it.
            let edit = try await store.append(remark(.edit(unheard), recipient: "bob", id: 4, "unheard, too"))
            #expect(edit.isEntered && edit.copy == nil)
            var retraction = remark(.retract(unheard), recipient: "bob", id: 5)
            retraction.isService = true
            let moderated = try await store.append(retraction)
            #expect(moderated.isEntered && moderated.copy == nil)
            #expect(try await store.all(inbox("bob")).compactMap(\.entry).isEmpty)
            // A device may have the other, although the log does not.
            let sent = try #require(heard.published).position
            try await store.enter(remark(.edit(sent), recipient: "bob", id: 6, "heard!"))
            #expect(try await entries(store, inbox("bob")).map(\.target) == [heard.copy?.position.offset])
        }
    }

    /// How an inbox comes to be gone.
    enum InboxEnd: String, CaseIterable { case erased, swept }

    private func end(_ name: String, _ end: InboxEnd, _ store: AnyStore, _ clock: TestClock) async throws {
        switch end {
        case .erased: while !(try await store.erase(user: user(name), in: tenant)).isDone {}
        case .swept:
            clock.advance(StoreLimits().unseen + 1)
            // Alice is seen, and hers stays.
            try await store.enter(request(id: 2, "note"))
            _ = try await store.trim(inbox(name), keep: Retention(entries: 0))
            let report = try await store.sweep()
            #expect(report.devices == 1 && report.channels == 1)
        }
        let list = try await store.channels(after: 0, limit: 10).channels
        #expect(!list.contains { $0.key == inbox(name) })
    }

    @Test(
        "what an inbox held that is gone is never named to who has the name now", arguments: StoreKind.allCases,
        InboxEnd.allCases)
    func whatIsGoneIsNeverNamed(_ kind: StoreKind, _ end: InboxEnd) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let first = try await store.append(request(recipient: "bob", id: 1, "to the first"))
            let sent = try #require(first.published).position
            let kept = try #require(first.copy)
            let answer = try await store.append(request("bob", recipient: "alice", id: 1, "from the first"))
            let received = try #require(answer.copy).position
            let question = try await store.append(remark(.request, by: "bob", recipient: "alice", id: 2, "why?"))
            let asked = try #require(question.copy).position
            try await self.end("bob", end, store, clock)
            // Behind the note, if there is one.
            var id: PublishID = 2
            func expectNoCopy(_ kinds: [PublishKind], _ state: String) async throws {
                for said in kinds {
                    id += 1
                    let outcome = try await store.append(remark(said, recipient: "bob", id: id, "of the first"))
                    #expect(outcome.isEntered && outcome.copy == nil, "\(said), and bob's inbox is \(state)")
                }
            }
            let remarks: [PublishKind] = [.edit(sent), .react(sent), .react(received), .reply(asked)]
            try await expectNoCopy(remarks, "made by it")
            try await store.enter(request("carol", recipient: "bob", id: 1, "to the second"))
            try await expectNoCopy(remarks, "whole")
            #expect(try await texts(store, inbox("bob")) == ["to the second"])
            _ = try await store.trim(inbox("bob"), keep: Retention(entries: 0))
            try await expectNoCopy(remarks + [.retract(sent)], "trimmed")
            #expect(try await entries(store, inbox("bob")).isEmpty)
            // Of what the second got, what is said arrives, trimmed or not.
            let news = try await store.append(request(recipient: "bob", id: id + 1, "to the second"))
            _ = try await store.trim(inbox("bob"), keep: Retention(entries: 0))
            let edit = PublishKind.edit(try #require(news.published).position)
            try await store.enter(remark(edit, recipient: "bob", id: id + 2, "to the second!"))
            #expect(try await entries(store, inbox("bob")).map(\.target) == [news.copy?.position.offset])
            // A cursor of the first one's inbox is no place in the second's.
            #expect(news.copy?.position.epoch != kept.position.epoch)
            let old = ChannelPosition(channel: kept.channel, position: kept.position)
            #expect(try await store.advance(device("bob"), to: [old]).cursors.isEmpty)
        }
    }
}
