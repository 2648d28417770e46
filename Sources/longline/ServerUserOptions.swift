import ArgumentParser
import LonglineWire

/// A user of the server that has a data folder.
struct ServerUserOptions: ParsableArguments {
    @Option(name: [.long, .customLong("data-directory")], help: "The server's data folder.")
    var data: String = "longline-data"

    @Option(help: "The tenant.")
    var tenant: String = "default"

    @Option(help: "The user.")
    var user: String

    func tenantID() throws -> TenantID { try Name.parse("--tenant", tenant, TenantID.init) }
    func userID() throws -> UserID { try Name.parse("--user", user, UserID.init) }
}
