import LonglineTestKit

@testable import LonglineClient

extension TemporaryFolder {
    /// A shared outbox that is looked at often, and whose living owner nobody takes it from while a test runs.
    func sharedStorage(name: String = "shared.sqlite") throws -> SharedClientStorage {
        try SharedClientStorage(path: file(name), takeOverAfter: .seconds(60), pollInterval: .milliseconds(10))
    }
}
