import CGnuTLS
import CQUICShim
import Synchronization

/// The TLS library's hashes.
enum TLSHash {
    static func hmacSHA512(key: [UInt8], data: [UInt8]) -> [UInt8]? {
        var digest = [UInt8](repeating: 0, count: 64)
        guard gnutls_hmac_fast(GNUTLS_MAC_SHA512, key, key.count, data, data.count, &digest) == 0 else { return nil }
        return digest
    }

    /// Keying material from an exporter master secret (RFC 8446 section 7.5); nil: the lengths aren't possible.
    static func export(secret: [UInt8], label: String, context: [UInt8], count: Int) -> [UInt8]? {
        var material = [UInt8](repeating: 0, count: count)
        let label = label.utf8.map { CChar(bitPattern: $0) }
        let result = llq_export(
            secret, secret.count, label, label.count, context, context.count, &material, material.count)
        return result == 0 ? material : nil
    }

    static func sha256(_ data: UnsafeRawBufferPointer) -> [UInt8]? {
        var digest = [UInt8](repeating: 0, count: 32)
        guard gnutls_hash_fast(GNUTLS_DIG_SHA256, data.baseAddress, data.count, &digest) == 0 else { return nil }
        return digest
    }
}

/// What GnuTLS's numbers mean, as a cause in our errors.
func tlsErrorName(_ code: Int32) -> String { String(cString: llq_tls_error_name(code)) }

/// The cipher suites and groups offered, parsed once for the process and each list of suites.
final class TLSPriority: @unchecked Sendable {
    // Proof: the parsed list is never changed, and GnuTLS only reads it.
    let pointer: OpaquePointer

    private static func text(_ suites: [TLSCipherSuite]) -> String {
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:" + suites.map { "+" + $0.rawValue }.joined(separator: ":")
            + ":-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:%DISABLE_TLS13_COMPAT_MODE"
    }

    private init(pointer: OpaquePointer) { self.pointer = pointer }

    /// Lists are few: each suite at most once, so at most 15.
    private static let cache = Mutex<[[TLSCipherSuite]: TLSPriority]>([:])

    /// Throws `invalidConfiguration` for a list that is empty or names a suite twice.
    static func shared(_ suites: [TLSCipherSuite] = TLSCipherSuite.standard) throws(QUICError) -> TLSPriority {
        guard !suites.isEmpty, Set(suites).count == suites.count else {
            throw QUICError(
                .invalidConfiguration, "The list of cipher suites is empty or names one twice",
                advice: "Name each suite once, the preferred first.")
        }
        if let known = cache.withLock({ $0[suites] }) { return known }
        var priority: gnutls_priority_t?
        let result = gnutls_priority_init(&priority, text(suites), nil)
        guard result == 0, let priority else {
            throw QUICError(
                .internalError, "The TLS library refuses our cipher suites", cause: tlsErrorName(result),
                advice: "Check the system's crypto policy and the installed GnuTLS (3.7 or later).")
        }
        let made = TLSPriority(pointer: priority)
        return cache.withLock { cache in
            // Another thread may have been faster.
            if let known = cache[suites] { return known }
            cache[suites] = made
            return made
        }
    }
}

/// A certificate with its key, or a set of trusted roots, as GnuTLS holds them. Freed with the last session that uses it.
final class TLSCredentials: @unchecked Sendable {
    // Proof: it is filled before anyone else sees it and only read afterwards, which GnuTLS allows from any thread.
    let pointer: OpaquePointer

    private init() throws(QUICError) {
        var credentials: gnutls_certificate_credentials_t?
        let result = gnutls_certificate_allocate_credentials(&credentials)
        guard result == 0, let credentials else {
            throw QUICError(
                .internalError, "The TLS library has no memory", cause: tlsErrorName(result), advice: "Try again.")
        }
        pointer = credentials
    }

    deinit { gnutls_certificate_free_credentials(pointer) }

    private var raw: OpaquePointer { pointer }

    /// A server's.
    static func server(
        _ source: TLSServerCredentials, clients: TLSClientAuthentication = .none
    ) throws(QUICError) -> TLSCredentials {
        let credentials = try TLSCredentials()
        try credentials.use(source)
        switch clients {
        case .none: break
        case .requested(let pem), .required(let pem): try credentials.trust(pem)
        }
        return credentials
    }

    private func use(_ source: TLSServerCredentials) throws(QUICError) {
        try Self.checkMatch(source)
        let result = Self.withDatum(source.certificateChainPEM) { certificate in
            Self.withDatum(source.privateKeyPEM) { key in
                gnutls_certificate_set_x509_key_mem2(
                    raw, certificate, key, GNUTLS_X509_FMT_PEM, nil, 0)
            }
        }
        guard result >= 0 else {
            throw QUICError(
                .invalidCertificate, "The certificate and key can't be used", cause: tlsErrorName(result),
                advice: "Check that both are PEM, that the key is not encrypted, and that it belongs to the first "
                    + "certificate.")
        }
    }

    private func trust(_ pem: String) throws(QUICError) {
        let result = Self.withDatum(pem) {
            gnutls_certificate_set_x509_trust_mem(raw, $0, GNUTLS_X509_FMT_PEM)
        }
        guard result > 0 else {
            throw QUICError(
                .invalidCertificate, "The certificate authority can't be read",
                cause: result < 0 ? tlsErrorName(result) : "no certificate in it",
                advice: "Give one or more certificates in PEM.")
        }
    }

    /// GnuTLS 3.7 takes any key for a certificate; the handshake would fail later.
    private static func checkMatch(_ source: TLSServerCredentials) throws(QUICError) {
        var certificate: gnutls_x509_crt_t?
        var key: gnutls_x509_privkey_t?
        var certificateID = [UInt8](repeating: 0, count: 32)
        var keyID = certificateID
        var lengths = (certificateID.count, keyID.count)
        defer {
            if let certificate { gnutls_x509_crt_deinit(certificate) }
            if let key { gnutls_x509_privkey_deinit(key) }
        }
        let flags = UInt32(GNUTLS_KEYID_USE_SHA256.rawValue)
        var result = gnutls_x509_crt_init(&certificate)
        if result == 0 { result = gnutls_x509_privkey_init(&key) }
        if result == 0 {
            result = withDatum(source.certificateChainPEM) {
                gnutls_x509_crt_import(certificate, $0, GNUTLS_X509_FMT_PEM)
            }
        }
        if result == 0 {
            result = withDatum(source.privateKeyPEM) {
                gnutls_x509_privkey_import2(key, $0, GNUTLS_X509_FMT_PEM, nil, 0)
            }
        }
        if result == 0 { result = gnutls_x509_crt_get_key_id(certificate, flags, &certificateID, &lengths.0) }
        if result == 0 { result = gnutls_x509_privkey_get_key_id(key, flags, &keyID, &lengths.1) }
        guard result == 0, certificateID == keyID else {
            throw QUICError(
                .invalidCertificate, "The certificate and key can't be used",
                cause: result == 0 ? "the key belongs to another certificate" : tlsErrorName(result),
                advice: "Check that both are PEM, that the key is not encrypted, and that it belongs to the first "
                    + "certificate.")
        }
    }

    /// A client's.
    static func client(
        _ verification: TLSClientVerification, identity: TLSClientIdentity? = nil
    ) throws(QUICError) -> TLSCredentials {
        let credentials = try TLSCredentials()
        if let identity { try credentials.use(identity) }
        switch verification {
        case .systemRoots:
            let result = gnutls_certificate_set_x509_system_trust(credentials.raw)
            guard result > 0 else {
                throw QUICError(
                    .invalidConfiguration, "No system root certificates were found",
                    cause: result < 0 ? tlsErrorName(result) : nil,
                    advice: "Install the package ca-certificates, or name a certificate authority.")
            }
        case .certificateAuthority(let pem):
            try credentials.trust(pem)
        case .pinnedPublicKey(let hashes):
            guard !hashes.isEmpty, hashes.allSatisfy({ $0.count == 32 }) else {
                throw QUICError(
                    .invalidConfiguration, "A public key pin must be 32 bytes: SHA-256 of the SubjectPublicKeyInfo",
                    advice: "Give at least one pin of that length.")
            }
        case .insecureNoVerification:
            break
        }
        return credentials
    }

    static func withDatum(_ text: String, _ body: (UnsafePointer<gnutls_datum_t>) -> Int32) -> Int32 {
        var bytes = Array(text.utf8)
        return bytes.withUnsafeMutableBufferPointer { buffer in
            var datum = gnutls_datum_t(data: buffer.baseAddress, size: UInt32(buffer.count))
            return body(&datum)
        }
    }
}

/// GnuTLS's guard against copies of 0-RTT flights, over a store of ours that all loops share. One per endpoint:
/// GnuTLS changes the object without a lock.
final class AntiReplay {
    let pointer: OpaquePointer
    private let store: ReplayStore
    /// Whose handshake goes on: see `QUICSocketAddress.hostKey`.
    @exclusivity(unchecked) var host: UInt64 = 0
    /// Whether the store knows the ticket that it offers.
    @exclusivity(unchecked) private var isTicketKnown = false

    /// Far longer than a ticket lives. When it has passed GnuTLS begins anew and refuses 0-RTT for tickets issued before.
    private static let windowMilliseconds: UInt32 = 21 * 24 * 3600 * 1000
    /// The store's key begins with the time GnuTLS began, which differs between loops.
    private static let startTimeLength = 12

    init(store: ReplayStore) throws(QUICError) {
        var object: gnutls_anti_replay_t?
        let result = gnutls_anti_replay_init(&object)
        guard result == 0, let object else {
            throw QUICError(
                .internalError, "The TLS library has no memory", cause: tlsErrorName(result), advice: "Try again.")
        }
        pointer = object
        self.store = store
        gnutls_anti_replay_set_window(object, Self.windowMilliseconds)
        gnutls_anti_replay_set_ptr(object, Unmanaged.passUnretained(self).toOpaque())
        gnutls_anti_replay_set_add_function(object) { context, _, key, _ in
            guard let context, let key, Int(key.pointee.size) > AntiReplay.startTimeLength else {
                return GNUTLS_E_DB_ENTRY_EXISTS
            }
            let own = Unmanaged<AntiReplay>.fromOpaque(context).takeUnretainedValue()
            guard own.isTicketKnown else { return GNUTLS_E_DB_ENTRY_EXISTS }
            let bytes = UnsafeBufferPointer(start: key.pointee.data, count: Int(key.pointee.size))
            let now = llq_wall_clock()
            let verdict = own.store.check(
                Array(bytes[AntiReplay.startTimeLength...]), host: own.host,
                expiry: now + TicketKeyRing.ticketLifetime + 3600, now: now)
            return verdict == .fresh ? 0 : GNUTLS_E_DB_ENTRY_EXISTS
        }
    }

    deinit { gnutls_anti_replay_deinit(pointer) }

    /// The handshake ends with this ticket.
    func noteSealed(_ ticket: UnsafeRawBufferPointer) {
        let now = llq_wall_clock()
        store.noteSealed(ticket, host: host, expiry: now + TicketKeyRing.ticketLifetime, now: now)
    }

    /// The handshake begins with this ticket; nil: with none.
    func noteOffered(_ ticket: UnsafeRawBufferPointer?) {
        isTicketKnown = ticket.map { store.hasSealed($0) } ?? false
    }
}
