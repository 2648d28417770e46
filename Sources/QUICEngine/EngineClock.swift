import CQUICShim

/// The wall clock of the TLS library, which reads it itself for certificates and tickets. The engine's own time is what
/// it is handed.
enum EngineClock {
    static func wall() -> UInt64 { llq_wall_clock() }
}
