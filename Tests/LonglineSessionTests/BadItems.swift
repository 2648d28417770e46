/// Fields that a frame has in one of its forms only, and those of the items in its lists.
extension FrameFields {
    /// What stands before and behind the fields in question.
    private static func context(_ bytes: [UInt8]) -> Field { Field(name: "", good: bytes, bad: []) }

    private static let sixteen = [UInt8](repeating: 7, count: 16)
    private static let eight = [UInt8](repeating: 7, count: 8)

    /// Frames in another form than in ``all``.
    static let forms: [FrameFields] = [
        FrameFields(
            name: "CONNECT", type: 0x01, isFromClient: true,
            fields: [
                context([1, 1, 1]), bytes("ticket", 1_024), context(sixteen + [5, 5, 0, 1, 0x61]),
            ]),
        FrameFields(
            name: "CONNECT", type: 0x01, isFromClient: true,
            fields: [
                context([1, 1, 0, 1, 0x61] + sixteen + [5, 5, 1]), channel("cursors: channel"),
                position("cursors: position"), context([1, 0x61]),
            ]),
        FrameFields(
            name: "CONNECTED", type: 0x03, isFromClient: false,
            fields: [
                context([1] + eight + [0, 5, 1, 0x61, 5, 5, 5, 5, 5, 5, 5, 1]), channel("channels: channel"),
                position("channels: head"), choice("channels: recovery", over: 2),
            ]),
        FrameFields(
            name: "CONVERSATIONS_PAGE", type: 0x35, isFromClient: false,
            fields: [
                context(eight + [0, 5, 1, 9, 1]), channel("items: conversation"), position("items: last"),
                number("items: time"), number("items: unread"), number("items: muted until"),
                choice("items: blocked", over: 1), number("items: read"), number("items: peer delivered"),
                number("items: peer read"),
            ]),
    ]

    /// Everything that the table in the documentation says.
    static let tested: [FrameFields] = all + forms
}
