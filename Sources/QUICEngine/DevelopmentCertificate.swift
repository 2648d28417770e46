import CGnuTLS
import CQUICShim
import Glibc

/// A self-signed certificate for development and tests. Clients must be told to trust it: as their certificate authority,
/// or by its pin.
public struct DevelopmentCertificate: Sendable {
    /// The kinds of key.
    public enum KeyKind: Sendable {
        /// ECDSA on P-256: accepted by every TLS client.
        case ecdsaP256
        /// Ed25519: signatures of constant length, but not every client accepts it.
        case ed25519
    }

    /// The certificate in PEM; it is its own authority.
    public let certificatePEM: String
    /// The private key in PEM (PKCS #8).
    public let privateKeyPEM: String
    /// SHA-256 of the SubjectPublicKeyInfo, for `TLSClientVerification.pinnedPublicKey`.
    public let publicKeySHA256: [UInt8]

    /// Both as a server wants them.
    public var credentials: TLSServerCredentials {
        TLSServerCredentials(certificateChainPEM: certificatePEM, privateKeyPEM: privateKeyPEM)
    }

    /// Makes a key and a certificate for it. The key comes from the TLS library's own random source.
    /// - Parameters:
    ///   - names: DNS names and numeric addresses it is valid for; the first is also its common name.
    ///   - validDays: how long it is valid, from 1 to 36,500; it starts an hour before `now`, for clocks that differ.
    ///   - now: seconds since 1970.
    ///   - keyKind: which kind of key.
    /// - Throws: `invalidConfiguration` without a name or for other days.
    public static func generate(
        names: [String], validDays: Int = 30, now: UInt64, keyKind: KeyKind = .ecdsaP256
    ) throws(QUICError) -> DevelopmentCertificate {
        try generate(
            names: names, validDays: validDays, now: now, keyKind: keyKind,
            purposes: [KeyPurpose.server, KeyPurpose.client])
    }

    /// Extended key usages (RFC 5280 section 4.2.1.12).
    enum KeyPurpose {
        static let server = "1.3.6.1.5.5.7.3.1"
        static let client = "1.3.6.1.5.5.7.3.2"
    }

    /// The same for these purposes; empty: for all.
    static func generate(
        names: [String], validDays: Int, now: UInt64, keyKind: KeyKind, purposes: [String]
    ) throws(QUICError) -> DevelopmentCertificate {
        guard let commonName = names.first, (1...36500).contains(validDays) else {
            throw QUICError(
                .invalidConfiguration, "A certificate needs a name and from 1 to 36500 days",
                advice: "Name at least \"localhost\".")
        }
        let builder = try CertificateBuilder(keyKind: keyKind)
        try builder.setValidity(from: now - min(now, 3600), until: now + UInt64(validDays) * 86400)
        try builder.setNames(commonName: commonName, alternatives: names)
        try builder.sign(for: purposes)
        return DevelopmentCertificate(
            certificatePEM: try builder.certificatePEM(), privateKeyPEM: try builder.privateKeyPEM(),
            publicKeySHA256: try builder.publicKeySHA256())
    }
}

/// GnuTLS's objects while a certificate is made.
private final class CertificateBuilder {
    private var key: gnutls_x509_privkey_t?
    private var certificate: gnutls_x509_crt_t?
    private var publicKey: gnutls_pubkey_t?
    private let isEd25519: Bool

    init(keyKind: DevelopmentCertificate.KeyKind) throws(QUICError) {
        isEd25519 = keyKind == .ed25519
        try check(gnutls_x509_privkey_init(&key))
        try check(gnutls_x509_crt_init(&certificate))
        try check(gnutls_pubkey_init(&publicKey))
        switch keyKind {
        case .ecdsaP256:
            try generateP256()
        case .ed25519:
            try check(gnutls_x509_privkey_generate(key, GNUTLS_PK_EDDSA_ED25519, 256, 0))
        }
        try check(gnutls_x509_crt_set_version(certificate, 3))
        try check(gnutls_x509_crt_set_key(certificate, key))
        try check(gnutls_pubkey_import_x509(publicKey, certificate, 0))
    }

    /// GnuTLS writes the private number like any integer, with a zero in front or a byte short. Others read 32 bytes only
    /// (RFC 5915 section 3), so a key that isn't written so, and half of all aren't, is drawn again.
    private func generateP256() throws(QUICError) {
        // GNUTLS_CURVE_TO_BITS is a function-like macro: the curve with the highest bit set.
        let bits = UInt32(GNUTLS_ECC_CURVE_SECP256R1.rawValue) | 1 << 31
        var length: UInt32
        repeat {
            if let key { gnutls_x509_privkey_deinit(key) }
            key = nil
            try check(gnutls_x509_privkey_init(&key))
            try check(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, bits, 0))
            var number = gnutls_datum_t()
            try check(gnutls_x509_privkey_export_ecc_raw(key, nil, nil, nil, &number))
            length = number.size
            llq_free(number.data)
        } while length != 32
    }

    deinit {
        if let publicKey { gnutls_pubkey_deinit(publicKey) }
        if let certificate { gnutls_x509_crt_deinit(certificate) }
        if let key { gnutls_x509_privkey_deinit(key) }
    }

    func setValidity(from start: UInt64, until end: UInt64) throws(QUICError) {
        try check(gnutls_x509_crt_set_activation_time(certificate, time_t(start)))
        try check(gnutls_x509_crt_set_expiration_time(certificate, time_t(end)))
        var serial = [UInt8](repeating: 0, count: 16)
        try check(gnutls_rnd(GNUTLS_RND_NONCE, &serial, serial.count))
        serial[0] = serial[0] & 0x7f | 0x01
        try check(gnutls_x509_crt_set_serial(certificate, serial, serial.count))
    }

    func setNames(commonName: String, alternatives: [String]) throws(QUICError) {
        let name = Array(commonName.utf8.prefix(64))
        try check(
            gnutls_x509_crt_set_dn_by_oid(certificate, "2.5.4.3", 0, name, UInt32(name.count)))
        for alternative in alternatives {
            if let address = QUICSocketAddress(numericHost: alternative, port: 0) {
                let bytes = address.networkBytes
                try check(
                    gnutls_x509_crt_set_subject_alt_name(
                        certificate, GNUTLS_SAN_IPADDRESS, bytes, UInt32(bytes.count), UInt32(GNUTLS_FSAN_APPEND)))
            } else {
                let bytes = Array(alternative.utf8)
                try check(
                    gnutls_x509_crt_set_subject_alt_name(
                        certificate, GNUTLS_SAN_DNSNAME, bytes, UInt32(bytes.count), UInt32(GNUTLS_FSAN_APPEND)))
            }
        }
    }

    func sign(for purposes: [String]) throws(QUICError) {
        try check(gnutls_x509_crt_set_basic_constraints(certificate, 1, 0))
        try check(
            gnutls_x509_crt_set_key_usage(
                certificate, UInt32(GNUTLS_KEY_DIGITAL_SIGNATURE) | UInt32(GNUTLS_KEY_KEY_CERT_SIGN)))
        for purpose in purposes {
            try check(gnutls_x509_crt_set_key_purpose_oid(certificate, purpose, 0))
        }
        var keyID = [UInt8](repeating: 0, count: 32)
        var length = keyID.count
        try check(gnutls_x509_crt_get_key_id(certificate, UInt32(GNUTLS_KEYID_USE_SHA256.rawValue), &keyID, &length))
        try check(gnutls_x509_crt_set_subject_key_id(certificate, keyID, length))
        try check(
            gnutls_x509_crt_sign2(
                certificate, certificate, key, isEd25519 ? GNUTLS_DIG_SHA512 : GNUTLS_DIG_SHA256, 0))
    }

    func certificatePEM() throws(QUICError) -> String {
        var datum = gnutls_datum_t()
        try check(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &datum))
        return Self.text(taking: datum)
    }

    func privateKeyPEM() throws(QUICError) -> String {
        var datum = gnutls_datum_t()
        try check(
            gnutls_x509_privkey_export2_pkcs8(
                key, GNUTLS_X509_FMT_PEM, nil, UInt32(GNUTLS_PKCS_PLAIN.rawValue), &datum))
        return Self.text(taking: datum)
    }

    func publicKeySHA256() throws(QUICError) -> [UInt8] {
        var datum = gnutls_datum_t()
        try check(gnutls_pubkey_export2(publicKey, GNUTLS_X509_FMT_DER, &datum))
        defer { llq_free(datum.data) }
        guard let hash = TLSHash.sha256(UnsafeRawBufferPointer(start: datum.data, count: Int(datum.size))) else {
            throw QUICError(.internalError, "SHA-256 is not available", advice: "Check the installed GnuTLS.")
        }
        return hash
    }

    private static func text(taking datum: gnutls_datum_t) -> String {
        defer { llq_free(datum.data) }
        return String(decoding: UnsafeBufferPointer(start: datum.data, count: Int(datum.size)), as: UTF8.self)
    }

    private func check(_ result: Int32) throws(QUICError) {
        guard result >= 0 else {
            throw QUICError(
                .internalError, "The TLS library can't make a certificate", cause: tlsErrorName(result),
                advice: "Check the installed GnuTLS (3.7 or later).")
        }
    }
}
