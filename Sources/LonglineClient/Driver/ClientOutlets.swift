/// Where a driver puts what the app reads, from any thread.
struct ClientOutlets: Sendable {
    let states = Broadcast<ConnectionState>(replaysLatest: true, initial: .disconnected)
    let notices = Broadcast<ClientNotice>(replaysLatest: false)
    let messages = MessageQueue()
    let confirmations = ConfirmationInbox()
}
