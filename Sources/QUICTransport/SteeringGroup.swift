internal import CSocketSteering
internal import NIOCore
internal import Synchronization

/// The sockets of a server's loops that share one local address, and the kernel filter that gives each datagram to the
/// socket of the loop that owns its connection.
///
/// The filter answers with a place in the kernel's list of the group's sockets: a socket that joins is put at its end,
/// and where one leaves the last one takes its place. We keep the same list and renew the filter with every socket that
/// joins. While the two differ (between a socket's end and its successor's start, or when two sockets join at the same
/// moment) datagrams come to the wrong loop, which hands them over: steering saves work, nothing depends on it.
final class SteeringGroup: Sendable {
    private let workers = Mutex<[UInt8]>([])
    private let workerOffset: Int

    /// - Parameter workerOffset: where the worker's byte is in a connection ID.
    init(workerOffset: Int) { self.workerOffset = workerOffset }

    /// A socket was bound to the address.
    /// - Returns: whether the kernel steers.
    func joined(_ worker: UInt8, channel: any Channel) -> Bool {
        let order = workers.withLock { workers in
            workers.append(worker)
            return workers
        }
        // The first has nobody to share with yet; the kernel takes a filter with the second.
        guard order.count > 1 else { return false }
        let result = try? channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(
            of: NIOBSDSocket.Handle.self
        ) { descriptor in
            lls_attach(descriptor, order, order.count, workerOffset)
        }
        return result == 0
    }

    /// A socket was closed.
    func left(_ worker: UInt8) {
        workers.withLock { workers in
            guard let place = workers.firstIndex(of: worker) else { return }
            workers.swapAt(place, workers.count - 1)
            workers.removeLast()
        }
    }
}
