/// A room's settings, and what the told user is there, as of a place in the room's log.
public struct RoomSettings: Hashable, Sendable {
    /// The room.
    public var room: RoomID
    /// The log's last entry then. What an entry of kind ``EntryKind/changed`` above it says comes on top.
    public var position: Position
    /// Who may join by their own request.
    public var joining: RoomJoining
    /// Who may publish.
    public var publishing: RoomPublishing
    /// What the told user is there.
    public var role: RoomRole

    /// Settings.
    public init(room: RoomID, position: Position, joining: RoomJoining, publishing: RoomPublishing, role: RoomRole) {
        self.room = room
        self.position = position
        self.joining = joining
        self.publishing = publishing
        self.role = role
    }

    /// Whether the room lets the told user publish. What the user's token allows is another matter.
    public var mayPublish: Bool { publishing == .members || role == .owner }
}

extension RoomSettings {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.identifier(room.description)
        try sink.position(position, "position")
        sink.byte(joining.rawValue)
        sink.byte(publishing.rawValue)
        sink.byte(role.rawValue)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            room: try reader.room("room"), position: try reader.position("position"),
            joining: try reader.choice("joining"), publishing: try reader.choice("publishing"),
            role: try reader.choice("role"))
    }
}
