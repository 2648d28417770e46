import LonglineStore
import LonglineWire

extension LonglineServer {
    /// Does what an operator's process asks.
    /// - Parameter wait: how long to wait for what goes on without being waited for: shorter than a connection of the control socket
    ///   lives.
    func answer(_ request: ControlRequest, within wait: Duration = .seconds(5)) async -> ControlAnswer {
        do {
            if let answer = try await answerAboutServer(request, within: wait) { return answer }
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
                do { return ControlAnswer(isDone: try await erasure.isDone(within: wait)) } catch {
                    throw Self.notErased(error)
                }
            case .sessions:
                let sessions = try await sessions(of: try UserID(request.user ?? ""), in: tenant)
                return ControlAnswer(
                    sessions: sessions.prefix(ControlAnswer.maximumSessions).map { SessionRecord($0) },
                    count: sessions.count)
            case .disconnect: return try await endSessions(request, tenant)
            case .reloadKeys, .status, .drain: break
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

    /// What concerns no tenant; nil: the request does.
    private func answerAboutServer(
        _ request: ControlRequest, within wait: Duration
    ) async throws -> ControlAnswer? {
        switch request.operation {
        case .reloadKeys:
            // It goes on in any case.
            let reload = Task { try await self.reloadFolderKeys() }
            guard try await reload.value(within: wait) != nil else {
                return ControlAnswer(
                    error: "a source of token keys has not answered yet: the old keys count until it has",
                    advice: "look at the server's log, then ask again")
            }
            return ControlAnswer()
        case .status: return ControlAnswer(status: try await status())
        case .drain:
            guard let rate = request.rate else { return ControlAnswer(error: "the rate is missing") }
            return ControlAnswer(remaining: try await drain(rate: rate, to: request.accessPoint).remaining)
        default: return nil
        }
    }

    private func endSessions(_ request: ControlRequest, _ tenant: TenantID) async throws -> ControlAnswer {
        let code = request.code ?? CloseCode.normal.rawValue
        let reason = request.reason ?? OperatorClose.standardReason
        guard OperatorClose.codes.contains(Int(code)) else {
            return ControlAnswer(
                error: "a close code is \(OperatorClose.codes.lowerBound) to \(OperatorClose.codes.upperBound)")
        }
        if let objection = OperatorClose.objection(toReason: reason) {
            return ControlAnswer(error: "the reason \(objection)")
        }
        let ended = try await disconnect(
            user: try UserID(request.user ?? ""), device: try request.device.map { try DeviceID($0) }, in: tenant,
            close: Close(code: CloseCode(rawValue: code), reason: reason))
        return ControlAnswer(count: ended)
    }

    private static func device(_ request: ControlRequest, _ tenant: TenantID) throws -> DeviceKey {
        DeviceKey(
            tenant: tenant, user: try UserID(request.user ?? ""), device: try DeviceID(request.device ?? ""))
    }
}
