public import LonglineWire

/// An acknowledgement that the ledger remembers.
public struct LedgerAnswer: Hashable, Sendable {
    /// The tag of the publish that was entered.
    public var tag: PublishTag
    /// What was answered.
    public var published: Published

    /// A remembered acknowledgement.
    public init(tag: PublishTag, published: Published) {
        self.tag = tag
        self.published = published
    }
}

/// The rule that enters each publish once and in its producer's order. One ledger belongs to one (tenant, user, device,
/// producer, channel), and holds the last ID entered and the last ``remembered`` acknowledgements.
///
/// ```text
///   id = 0, after >= id, id over 2^62 - 1            -> refused invalid-id
///   id <= last, remembered with the same tag   -> the same acknowledgement
///   id <= last, remembered with another tag    -> refused id-reused
///   id <= last, passed over                    -> refused id-reused
///   id <= last, forgotten                      -> refused outcome-unknown
///   id >  last, after >  last                  -> refused out-of-order, with last
///   id >  last, after <= last                  -> entered; last becomes id
/// ```
/// An ID was passed over when the ledger remembers back to it, and not it: then it was never entered, and whoever sends it comes from
/// a copied outbox whose other half used the ID in another channel. One that is below all that is remembered may have been forgotten.
///
/// A publish sent again, over any connection or inside a replayed 0-RTT flight, so makes no second entry.
public struct PublishLedger: Sendable {
    /// How many acknowledgements a ledger remembers: as many as a client may have unanswered.
    public static let remembered = FrameLimits.maximumUnacknowledged
    /// The highest ID: what a varint holds.
    public static let maximumID: PublishID = FrameLimits.maximumNumber

    /// What the ledger says about a publish.
    public enum Verdict: Hashable, Sendable {
        /// Enter it.
        case enter
        /// It was entered before: answer the same again.
        case duplicate(Published)
        /// Don't enter it.
        case refuse(Refused)
    }

    /// Judges one publish.
    /// - Parameters:
    ///   - id: the publish's ID.
    ///   - tag: its tag, by which the same publish is told from another with its ID.
    ///   - after: the producer's previous ID in this channel that was not given up; 0 for none.
    ///   - lastID: the last ID that was entered; 0 when there is none.
    ///   - oldest: the lowest ID from which on nothing was forgotten; 0 where nothing was. Asked only about IDs at or below
    ///     `lastID` that have no acknowledgement.
    ///   - answer: looks an acknowledgement up; asked only about IDs at or below `lastID`.
    public static func judge<Failure: Error>(
        id: PublishID, tag: PublishTag, after: PublishID, lastID: PublishID,
        oldest: () throws(Failure) -> PublishID,
        answer: (PublishID) throws(Failure) -> LedgerAnswer?
    ) throws(Failure) -> Verdict {
        guard isValid(id: id, after: after) else { return .refuse(Refused(id: id, code: .invalidID)) }
        if id <= lastID {
            guard let known = try answer(id) else {
                return .refuse(Refused(id: id, code: id >= (try oldest()) ? .idReused : .outcomeUnknown))
            }
            guard known.tag == tag else { return .refuse(Refused(id: id, code: .idReused)) }
            return .duplicate(known.published)
        }
        guard after <= lastID else { return .refuse(Refused(id: id, code: .outOfOrder, lastID: lastID)) }
        return .enter
    }

    /// Whether the two IDs make sense together.
    public static func isValid(id: PublishID, after: PublishID) -> Bool {
        id != 0 && after < id && id <= maximumID
    }
}
