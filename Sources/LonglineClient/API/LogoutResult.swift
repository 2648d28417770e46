/// What a logout came to beyond this device, whose own storage is wiped in any case.
public enum LogoutResult: Sendable {
    /// The service made every credential of the device void.
    case acknowledged
    /// The service was not told, or did not answer: the device's last ticket and token hold until their own time is over,
    /// unless somebody revokes them. The error says what was in the way: ``ClientError/Code/notConnected`` where the service was not told,
    /// ``ClientError/Code/outcomeUnknown`` where it was and did not answer.
    case localOnly(ClientError)
}
