public import NIOCore
public import QUICEngine

// The shortest way between a task and its connection: each body runs on the connection's loop, where reads and writes change
// no thread. See ``QUICLoopExecutor`` for what a task must not do there.

extension QUICListener {
    /// Serves every connection, each in a task of its own on the connection's loop, until the listener has ended and the
    /// last body returned, or the calling task is cancelled, which cancels the bodies.
    ///
    /// A connection is closed when its body ends: with code 0, or with `failureCode` where the body threw, which is logged at
    /// debug level. What was written
    /// and isn't delivered yet may be lost then: let the peer say that it has everything.
    /// - Parameters:
    ///   - failureCode: the application's code for "something broke".
    ///   - body: must not block the loop; long computations belong into a task on another executor.
    /// - Throws: `CancellationError`.
    public func serve(
        failureCode: UInt64 = 1, _ body: @escaping @Sendable (QUICConnection) async throws -> Void
    ) async throws {
        try await withThrowingDiscardingTaskGroup { group in
            for try await connection in connections {
                group.addTask(executorPreference: connection.executor) {
                    do {
                        try await body(connection)
                        connection.close()
                    } catch {
                        await connection.logFailure(of: "connection", error)
                        // It ends alone; a connection that is over already doesn't mind.
                        connection.close(code: failureCode, reason: "")
                    }
                }
            }
        }
    }
}

extension QUICConnection {
    /// Serves every stream that the peer opens, each in a task of its own on the connection's loop, until the connection has
    /// ended and the last body returned, or the calling task is cancelled. A body begins at once: until it first waits, no other
    /// stream is taken.
    ///
    /// A body that throws ends its stream alone: what it had not finished is reset and stopped with `failureCode`. The error is
    /// logged at debug level.
    ///
    /// A peer may open another stream as soon as one is over, which its reset makes it, although the body goes on. So no stream is
    /// taken while `maximumBodies` run. Others wait meanwhile as ``inboundStreams`` says, and beyond that they are reset and stopped
    /// with code 0.
    /// - Parameters:
    ///   - failureCode: the application's code for "something broke".
    ///   - maximumBodies: how many may run at a time, at least 1. nil: as many as the peer may have streams open,
    ///     ``/QUICEngine/TransportSettings/maxBidirectionalStreams`` and
    ///     ``/QUICEngine/TransportSettings/maxUnidirectionalStreams`` together.
    ///   - body: must not block the loop.
    /// - Throws: `CancellationError`.
    public func serveStreams(
        failureCode: UInt64 = 1, maximumBodies: Int? = nil,
        _ body: @escaping @Sendable (QUICStream) async throws -> Void
    ) async throws {
        let places = Places(max(maximumBodies ?? streamLimit, 1))
        try await withThrowingDiscardingTaskGroup { group in
            var streams = inboundStreams.makeAsyncIterator()
            while true {
                try await places.take()
                guard let stream = try await streams.next() else { return }
                group.addImmediateTask(executorPreference: executor) {
                    defer { places.give() }
                    do {
                        try await body(stream)
                    } catch {
                        await self.logFailure(of: "stream", error, stream: stream.id)
                        stream.giveUp(code: failureCode)
                    }
                }
            }
        }
    }
}

extension QUICClient {
    /// Connects, runs the body on the connection's loop, and closes: with code 0, or with `failureCode` where the body threw.
    ///
    /// With `returnsEarly`, what the body writes before it waits leaves in the first flight.
    ///
    /// What was written and isn't delivered when the body returns may be lost: read the peer's answer, or wait for
    /// ``QUICStream/delivered()``, first.
    /// - Parameters:
    ///   - failureCode: the application's code for "something broke".
    ///   - body: must not block the loop.
    /// - Throws: what ``connect(host:port:configuration:localAddress:returnsEarly:on:)`` throws, and what the body throws.
    public func withConnection<Result: Sendable>(
        host: String, port: Int, configuration: ClientConfiguration, localAddress: SocketAddress? = nil,
        returnsEarly: Bool = false, on eventLoop: any EventLoop, failureCode: UInt64 = 1,
        _ body: (QUICConnection) async throws -> Result
    ) async throws -> Result {
        try await withTaskExecutorPreference(executor(on: eventLoop)) {
            let connection = try await connect(
                host: host, port: port, configuration: configuration, localAddress: localAddress,
                returnsEarly: returnsEarly, on: eventLoop)
            do {
                let result = try await body(connection)
                connection.close()
                return result
            } catch {
                connection.close(code: failureCode, reason: "")
                throw error
            }
        }
    }
}
