/// A cipher suite of TLS 1.3 for what is sent after the first packets, which always use AES-128-GCM.
public enum TLSCipherSuite: String, Sendable, Hashable, CaseIterable {
    /// TLS_AES_128_GCM_SHA256: the fastest where the processor knows AES.
    case aes128GCM = "AES-128-GCM"
    /// TLS_AES_256_GCM_SHA384.
    case aes256GCM = "AES-256-GCM"
    /// TLS_CHACHA20_POLY1305_SHA256: the fastest where it does not.
    case chacha20Poly1305 = "CHACHA20-POLY1305"

    /// What is used unless an application chooses.
    public static let standard: [TLSCipherSuite] = [.aes128GCM, .aes256GCM, .chacha20Poly1305]
}
