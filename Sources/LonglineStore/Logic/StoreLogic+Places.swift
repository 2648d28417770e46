import LonglineWire

/// The highest login of one platform of a user.
struct PlaceRecord: Hashable, Sendable {
    var platform: DevicePlatform
    var device: DeviceID
    var login: UInt64
}

extension StoreRules {
    /// What a login gets; see ``DevicePlaces``.
    static func place(of login: DeviceLogin, policy: DevicePolicy, _ tables: some StoreTables) throws -> PlaceAnswer {
        guard policy != .all else { return .held }
        let records = try tables.places(of: login.device.user, in: login.device.tenant)
        let compared = policy == .one ? records : records.filter { $0.platform == login.platform }
        // Equal logins of two platforms were possible while each had a place of its own: the lower name is as good as any.
        let holder = compared.max {
            ($0.login, $1.platform.description) < ($1.login, $0.platform.description)
        }
        guard let holder else { return .taken }
        if holder.device == login.device.device {
            guard login.number >= holder.login else { return .refused(holder: holder.device, login: holder.login) }
            return login.number == holder.login && holder.platform == login.platform ? .held : .taken
        }
        guard login.number > holder.login else { return .refused(holder: holder.device, login: holder.login) }
        return .taken
    }
}

extension StoreLogic {
    func takePlace(of login: DeviceLogin, policy: DevicePolicy) throws -> PlaceAnswer {
        let answer = try StoreRules.place(of: login, policy: policy, tables)
        guard answer == .taken else { return answer }
        let (user, tenant) = (login.device.user, login.device.tenant)
        let records = try tables.places(of: user, in: tenant)
        let isNew = !records.contains { $0.platform == login.platform }
        guard !isNew || records.count < limits.platformsPerUser else {
            throw StoreError(
                .limitExceeded, message: "user \(user) has devices of \(records.count) platforms",
                advice: "platforms are few words such as phone and desktop, not names of devices")
        }
        let record = PlaceRecord(platform: login.platform, device: login.device.device, login: login.number)
        try tables.set(record, of: user, in: tenant)
        return .taken
    }
}
