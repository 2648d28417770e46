import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

@Suite(.timeLimit(.minutes(1))) struct CursorWriterTests {
    private static let inbox = identifier { try ChannelID("user/ann") }
    private static let device = identifier {
        DeviceKey(tenant: try TenantID("acme"), user: try UserID("ann"), device: try DeviceID("phone"))
    }

    private func place(_ offset: Offset, epoch: Epoch = 1) -> ChannelPosition {
        ChannelPosition(channel: Self.inbox, position: Position(epoch: epoch, offset: offset))
    }

    /// Counts writes, and has no room when it is told so.
    private final class Cursors: DeviceCursors {
        let writes = Mutex<[[ChannelPosition]]>([])
        let isFull = Mutex(false)
        let whileWriting = Mutex<(@Sendable () -> Void)?>(nil)

        func advance(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) -> CursorRecord {
            whileWriting.withLock { $0 }?()
            if isFull.withLock({ $0 }) { throw StoreError(.storageFull, message: "no room") }
            writes.withLock { $0.append(cursors) }
            return CursorRecord(version: 1, cursors: [:])
        }

        func confirmed(by user: UserID, in channel: ChannelKey) async -> Position? { nil }

        func admit(_ device: DeviceKey, producer: ProducerID, connectNumber: UInt64) async -> ConnectAdmission {
            .returning
        }
    }

    private func writer(_ cursors: Cursors) -> CursorWriter {
        CursorWriter(cursors: cursors, delay: .milliseconds(1), onFailure: { _ in })
    }

    @Test func manyConfirmationsAreOneWrite() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        for offset in 1...100 as ClosedRange<Offset> { writer.put(Self.device, [place(offset)]) }
        writer.put(Self.device, [place(50)])
        #expect(await writer.flush())
        #expect(cursors.writes.withLock { $0 } == [[place(100)]])
        #expect(await writer.flush())
        #expect(cursors.writes.withLock { $0.count } == 1)
    }

    @Test func aNewEpochReplacesTheOld() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        writer.put(Self.device, [place(100)])
        writer.put(Self.device, [place(3, epoch: 2)])
        await writer.flush()
        #expect(cursors.writes.withLock { $0 } == [[place(3, epoch: 2)]])
    }

    @Test func whatWaitsOfAUsersDevicesIsKnownUntilItIsWritten() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        let user = Self.device.userKey
        let tablet = identifier {
            DeviceKey(tenant: Self.device.tenant, user: Self.device.user, device: try DeviceID("tablet"))
        }
        writer.put(Self.device, [place(7)])
        writer.put(tablet, [place(9)])
        #expect(writer.covers(place(9), of: user) && !writer.covers(place(10), of: user))
        #expect(!writer.covers(place(7, epoch: 2), of: user))
        let other = identifier { UserKey(tenant: Self.device.tenant, user: try UserID("eve")) }
        #expect(!writer.covers(place(7), of: other))
        // Nor does it go when it could not be written.
        cursors.isFull.withLock { $0 = true }
        await writer.flush()
        #expect(writer.covers(place(9), of: user))
        cursors.isFull.withLock { $0 = false }
        let isKnown = Mutex<[Bool]>([])
        let sought = place(7)
        cursors.whileWriting.withLock {
            $0 = {
                let known = writer.covers(sought, of: user)
                isKnown.withLock { $0.append(known) }
            }
        }
        await writer.flush()
        #expect(isKnown.withLock { $0.first } == true)
        #expect(!writer.covers(sought, of: user))
        writer.put(tablet, [place(11)])
        await writer.forget(user)
        #expect(!writer.covers(place(11), of: user))
    }

    @Test func whatFoundNoRoomIsWrittenLaterAndNeverBackwards() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        cursors.isFull.withLock { $0 = true }
        writer.put(Self.device, [place(10)])
        #expect(await writer.flush() == false)
        writer.put(Self.device, [place(20)])
        cursors.isFull.withLock { $0 = false }
        #expect(await writer.flush())
        #expect(cursors.writes.withLock { $0 } == [[place(20)]])
    }

    /// Two links of a device may ask one after the other, before anything is written.
    @Test func whatWaitsIsToldUntilItIsWritten() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        writer.put(Self.device, [place(7)])
        for _ in 0..<2 { #expect(writer.waiting(for: Self.device) == [place(7)]) }
        await writer.flush()
        #expect(cursors.writes.withLock { $0 } == [[place(7)]])
        #expect(writer.waiting(for: Self.device).isEmpty)
    }

    /// The device came back between the write and the store's answer.
    @Test func whatIsBeingWrittenIsToldToo() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        let taken = Mutex<[ChannelPosition]>([])
        cursors.whileWriting.withLock {
            $0 = {
                let places = writer.waiting(for: Self.device)
                taken.withLock { $0 = places }
            }
        }
        writer.put(Self.device, [place(7)])
        await writer.flush()
        #expect(taken.withLock { $0 } == [place(7)])
        #expect(writer.waiting(for: Self.device).isEmpty)
    }

    private func places(_ count: Int) -> [ChannelPosition] {
        (0..<count).map { number in
            ChannelPosition(
                channel: .room(identifier { try RoomID("room-\(number)") }), position: Position(epoch: 1, offset: 1))
        }
    }

    @Test func manyChannelsOfADeviceAreWrittenInSlices() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        let places = places(2 * CursorWriter.placesPerWrite + 1)
        writer.put(Self.device, places)
        #expect(await writer.flush())
        let writes = cursors.writes.withLock { $0 }
        #expect(writes.map(\.count).sorted() == [1, CursorWriter.placesPerWrite, CursorWriter.placesPerWrite])
        #expect(Set(writes.joined()) == Set(places))
    }

    @Test func whatWaitsOfADeviceIsBounded() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        cursors.isFull.withLock { $0 = true }
        let places = places(2 * CursorWriter.channelLimit)
        for half in [places.prefix(CursorWriter.channelLimit), places.suffix(CursorWriter.channelLimit)] {
            writer.put(Self.device, Array(half))
            #expect(writer.waiting(for: Self.device).count == CursorWriter.channelLimit)
            #expect(await writer.flush() == false)
            #expect(writer.waiting(for: Self.device).count == CursorWriter.channelLimit)
        }
    }

    /// A device names channels in CONNECT as it likes, each time others.
    @Test func namesOfOtherChannelsDoNotWaitForRoom() async throws {
        let store = FaultyStore()
        try await withServer(store: store, loops: 1) { server in
            let first = try await server.connected("ann")
            try await first.publish("note", to: Self.inbox)
            let key = ChannelKey(tenant: Self.device.tenant, channel: Self.inbox)
            let head = try #require(try await store.head(of: key)).position
            let own = ChannelPosition(channel: Self.inbox, position: head)
            store.set { $0.isFull = true }
            for connect in 0..<50 {
                let invented = (0..<20).map { number in
                    ChannelPosition(
                        channel: .room(identifier { try RoomID("room-\(connect)-\(number)") }), position: head)
                }
                let phone = try await server.device("ann")
                _ = try await phone.connect(cursors: [own] + invented)
            }
            #expect(server.runtime.core.cursors.waiting(for: Self.device) == [own])
            store.set { $0.isFull = false }
        }
    }

    @Test func theRestIsWrittenWhenItStops() async {
        let cursors = Cursors()
        let writer = writer(cursors)
        let running = Task { await writer.run() }
        writer.put(Self.device, [place(5)])
        writer.stop()
        await running.value
        #expect(cursors.writes.withLock { $0.last } == [place(5)])
    }
}
