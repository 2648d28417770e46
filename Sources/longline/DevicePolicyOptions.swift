import ArgumentParser
import LonglineServer
import LonglineStore
import LonglineWire

/// How many devices of a user may be logged in at a time.
struct DevicePolicyOptions: ParsableArguments {
    @Option(
        name: .customLong("device-policy"),
        help: """
            How many devices of a user may be logged in at a time: all, one-per-platform or one; the newer login stays. \
            Give it again as TENANT=POLICY for a tenant of its own.
            """)
    var given: [String] = []

    func validate() throws { _ = try policies() }

    func policies() throws -> DevicePolicies {
        var policies = DevicePolicies()
        var isStandardGiven = false
        for text in given {
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard let policy = parts.last.flatMap(DevicePolicy.init(rawValue:)) else {
                let known = DevicePolicy.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError("--device-policy: '\(text)' is none of \(known), alone or behind TENANT=.")
            }
            if parts.count == 1 {
                guard !isStandardGiven else { throw ValidationError("--device-policy: a policy for all comes twice.") }
                isStandardGiven = true
                policies.standard = policy
            } else {
                let tenant = try Name.parse("--device-policy", parts[0], TenantID.init)
                guard policies.tenants.updateValue(policy, forKey: tenant) == nil else {
                    throw ValidationError("--device-policy: \(tenant) comes twice.")
                }
            }
        }
        return policies
    }
}
