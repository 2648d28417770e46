import LonglineStore
import LonglineWire

extension LonglineServer {
    /// Does what an operator's process asks.
    func answer(_ request: ControlRequest) async -> ControlAnswer {
        do {
            if request.operation == .reloadKeys {
                try await reloadTokenKeys()
                return ControlAnswer()
            }
            let tenant = try TenantID(request.tenant ?? "")
            if request.operation != .generations, let served = configuration.tenants, !served.contains(tenant) {
                // A name that was mistyped would be shut out, and the one that was meant would not.
                return ControlAnswer(
                    error: "the tenant \(tenant) is not served here",
                    advice: "name one that the server was started with")
            }
            switch request.operation {
            case .revokeUser:
                try await revoke(user: try UserID(request.user ?? ""), in: tenant)
            case .revokeDevice:
                try await revoke(device: try Self.device(request, tenant))
            case .revokeToken:
                guard let token = request.token, !token.isEmpty else {
                    return ControlAnswer(error: "the token's ID is missing")
                }
                try await revoke(token: token, in: tenant, until: request.until ?? .max)
            case .eraseUser:
                let erasure = try await beginErasure(of: try UserID(request.user ?? ""), in: tenant)
                do { return ControlAnswer(isDone: try await erasure.isDone(within: Self.eraseWait)) } catch {
                    throw Self.notErased(error)
                }
            case .reloadKeys: break
            case .generations:
                let generations = try await generations(of: try Self.device(request, tenant))
                return ControlAnswer(userGeneration: generations.user, deviceGeneration: generations.device)
            }
            return ControlAnswer()
        } catch let error as ServerError {
            let cause = error.cause.map { ": \($0)" } ?? ""
            return ControlAnswer(error: error.message + cause, advice: error.advice)
        } catch {
            return ControlAnswer(error: "a name is missing or breaks the rule for names: \(error)")
        }
    }

    /// Shorter than a connection of the control socket lives.
    private static let eraseWait = Duration.seconds(5)

    private static func device(_ request: ControlRequest, _ tenant: TenantID) throws -> DeviceKey {
        DeviceKey(
            tenant: tenant, user: try UserID(request.user ?? ""), device: try DeviceID(request.device ?? ""))
    }
}
