/// A rule that the simulation's own server or clients break on purpose, to show that the checker notices.
public enum SimulatedFault: String, CaseIterable, Sendable {
    // MARK: The ledger
    /// The ledger takes another message for the one it knows by the same ID.
    case ignoreTag
    /// The ledger enters a message again that it knows.
    case enterTwice
    /// The ledger does not look at `after`.
    case ignoreAfter
    /// The ledger enters an old ID again whose acknowledgement it forgot.
    case enterUnknown
    /// The ledger says of an ID whose acknowledgement it forgot that it was passed over.
    case passOverForgotten
    /// The ledger goes with the entries when a log is trimmed.
    case trimLedger
    /// The ledger row is another write than its entry: a crash comes in between.
    case tearTransaction
    /// The recipient's copy is another write than the sender's record: a crash comes in between.
    case copyApart
    /// The server answers a publish a second time.
    case answerTwice
    /// The ledger refuses what it entered before.
    case refuseEntered
    /// What a right that was taken away does not allow is refused without asking the ledger.
    case refuseWithoutLedger
    /// The store enters what is published into a room by somebody who left it.
    case publishAfterLeave
    /// The store enters what a member publishes where only owners may.
    case publishAgainstSettings
    /// The last IDs go before the device does.
    case forgetLastIDs
    /// A recipient who blocks the sender gets a copy all the same.
    case deliverThroughBlock
    /// The recipient's copy names another place than the sender's record has.
    case copyWrongOrigin
    /// What another tenant's user of the same name does counts here.
    case mixTenants

    // MARK: The log and the cursors
    /// A read gives entries whose time is over.
    case deliverExpired
    /// A read skips entries whose time is not over.
    case expireEarly
    /// An entry's time is the wall clock's, also when that was set back.
    case timeGoesBack
    /// A room is readable from its beginning.
    case readBeforeJoin
    /// A room stays readable after a leave.
    case readAfterLeave
    /// A room that was deleted stays readable to those who were in it, also where it was made again.
    case readAfterDeletion
    /// A new device gets all that was ever broadcast.
    case broadcastFromTheStart
    /// What is broadcast is delivered from each connect on.
    case broadcastFromNow
    /// What was retracted is still read.
    case readRetracted
    /// What was retracted counts as unread for good.
    case countRetracted
    /// Everybody may edit and retract.
    case editByAnyone
    /// Nobody is told that a log was trimmed.
    case hideTrim
    /// Retention by age takes what is younger.
    case trimYoung
    /// A store restored from a backup keeps its epochs.
    case keepEpoch
    /// A cursor that arrives late goes back.
    case cursorGoesBack
    /// The server stores a cursor when it has sent, not when the device confirmed.
    case confirmOnSend
    /// The server tells a sender that a message arrived when it has sent it.
    case receiptOnSend
    /// The server answers a publish before it is durable.
    case acknowledgeBeforeDurable
    /// The server answers publishes that a full disk did not take as if they were entered.
    case acknowledgeFailedWrite
    /// The server shows an entry before it is durable.
    case deliverBeforeDurable
    /// The server goes on when the disk did not take a transaction.
    case surviveFailedSync
    /// A page of history begins before the join.
    case historyBeforeJoin
    /// A page of history leaves an entry out.
    case holeInHistory

    /// A sweep goes by a clock that is ahead, and takes devices that are in use.
    case sweepUsed
    /// CONNECTED says that nothing is gone of a log that a sweep took.
    case recoverSwept

    // MARK: The app's own server, and accounts that are erased
    /// The control layer forgets keys under way when the process ends.
    case forgetKeys
    /// The control layer draws a new number for a message that may have been entered before.
    case renumberResumed
    /// The control layer draws a new number for a message that may have been entered, as the ledger has forgotten it.
    case renumberForgotten
    /// The control layer answers a repetition with where the channel ends then.
    case answerAnew
    /// The control layer takes messages of a sender whose account is being erased.
    case publishForErased
    /// The control layer goes on answering for a sender whose account was erased.
    case keepAnswersOfErased
    /// The sessions of an erased account go on.
    case keepErasedSessions
    /// The server takes credentials from before an erasure.
    case trustErasedCredentials
    /// The server lets devices in while their account is being erased.
    case admitErasing
    /// An erasure does not wait for what its user's sessions have under way.
    case eraseBeforeWrites
    /// A new process does not go on with the erasures of the one before.
    case forgetErasures
    /// An erasure leaves a room without a word.
    case hideErasedLeave
    /// An erasure leaves the inbox behind.
    case keepErasedInbox
    /// An erasure leaves a device behind.
    case keepErasedDevice
    /// What erased users sent to others goes with them.
    case loseWhatErasedSent
    /// Nothing can be sent to the name of an erased user any more.
    case refuseToErased

    // MARK: Sessions
    /// The server takes connects that were overtaken.
    case ignoreConnectNumber
    /// The server enters early publishes of a connect that it has seen before.
    case trustRepeatedConnect
    /// The server takes early data for a complete handshake.
    case trustEarlyData
    /// The server ends the device's older session before the handshake is complete.
    case takeOverEarly
    /// The server goes on reading from links that were taken over.
    case keepOldSession
    /// The server takes a device for that of the user who had one of its name before.
    case serveFormerUser
    /// The server ends a session of a later login for a connect of an earlier one.
    case ignoreLogin
    /// A login that lost its place comes back, and keeps the device that has it.
    case ignorePlace
    /// A login takes the places of all platforms.
    case mixPlatforms
    /// A newer login takes the place before its handshake is complete.
    case evictEarly
    /// Commits do not wake sessions.
    case forgetWakes
    /// Commits do not wake sessions that are just loading their channels.
    case forgetWakesWhileLoading
    /// A commit is also pushed directly, past the channel's sender.
    case pushDirectly
    /// Each entry has a lane of its own.
    case changeLanes
    /// The server sends more than the window.
    case overfillWindow
    /// The server sends more than all channels may have unacknowledged together.
    case overfillRoom
    /// The server marks nothing as redelivered.
    case forgetMarks
    /// The server sends no GAP.
    case hideGap
    /// The server sends no SKIP.
    case hideSkip
    /// CONNECTED says of every channel that it is recovered.
    case lieAboutRecovery
    /// The server sends what a fresh token stopped to allow.
    case deliverWithoutRight
    /// A channel that a fresh token allows again goes on with what comes from then on.
    case forgetWhatCameMeanwhile
    /// The server leaves parts of a large payload out.
    case losePart
    /// The server sends parts of a large payload twice.
    case doublePart
    /// The server sends a part of a large payload in the place of another.
    case swapParts
    /// The server leaves what one user wrote out of a batch.
    case loseGroup

    // MARK: Clients
    /// The client sends a publish before its row is on the disk.
    case sendBeforeStored
    /// The client stores a cursor before the app is done.
    case confirmEarly
    /// The client acknowledges what has arrived.
    case acknowledgeOnArrival
    /// The client goes on in a channel before a row that was refused is off the disk.
    case goOnBeforeRemoved
    /// The client draws new IDs for messages that wait when a link is lost.
    case renumberOnReconnect
    /// The client draws new tags for messages that wait when a link is lost.
    case retagOnReconnect
    /// The client's clock for waiting messages stops while the device sleeps.
    case clockStopsInSleep
    /// The client gives the app whatever arrives.
    case ignoreChain
    /// The client sends a part of a large payload in the place of another.
    case swapPublishedParts
    /// The client sends more publishes than the server allows.
    case overrunWindow
    /// The client acknowledges entries, and never what is absent on purpose.
    case keepSkipsBack
    /// The client takes a publish for entered whose ID was used with another tag.
    case takeReusedForDone
    /// The client sends a publish behind one that was given up as if that had been entered.
    case keepAfter
    /// The client finishes a lane on which publishes have no answer yet.
    case finishLanesEarly
    /// The client does not say its cursors again to a server whose record is an older one.
    case ignoreOlderRecord
    /// A logout leaves the storage as it is for the next user.
    case keepStoresOnSwitch
    /// The client sends a connect number before it is on the disk.
    case connectBeforeStored
}
