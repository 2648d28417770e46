import CGnuTLS

/// From when until when a certificate is good, in seconds since 1970.
public struct CertificateValidity: Sendable, Hashable {
    /// The first second.
    public var start: UInt64
    /// The last one.
    public var end: UInt64

    /// A span of time.
    public init(start: UInt64, end: UInt64) {
        self.start = start
        self.end = end
    }

    /// Whether it is good at a time, in seconds since 1970.
    public func contains(_ time: UInt64) -> Bool { (start...max(start, end)).contains(time) }
}

extension TLSServerCredentials {
    /// When the first certificate of the chain is good: the owner's. Clients look at those behind it as well.
    /// - Throws: `invalidCertificate` when it can't be read.
    public func validity() throws(QUICError) -> CertificateValidity {
        var certificate: gnutls_x509_crt_t?
        defer { if let certificate { gnutls_x509_crt_deinit(certificate) } }
        var result = gnutls_x509_crt_init(&certificate)
        if result == 0 {
            result = TLSCredentials.withDatum(certificateChainPEM) {
                gnutls_x509_crt_import(certificate, $0, GNUTLS_X509_FMT_PEM)
            }
        }
        guard result == 0, let certificate else {
            throw QUICError(
                .invalidCertificate, "The certificate can't be read", cause: tlsErrorName(result),
                advice: "Check that it is PEM.")
        }
        // Minus one stands for a time that can't be said.
        func seconds(_ time: time_t) -> UInt64 { UInt64(max(0, time)) }
        return CertificateValidity(
            start: seconds(gnutls_x509_crt_get_activation_time(certificate)),
            end: seconds(gnutls_x509_crt_get_expiration_time(certificate)))
    }
}
