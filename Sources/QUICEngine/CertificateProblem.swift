import CGnuTLS

/// What GnuTLS found wrong with a certificate, in words.
enum CertificateProblem {
    static func error(status: UInt32, of owner: String, name: String) -> QUICError {
        func has(_ flag: gnutls_certificate_status_t) -> Bool { status & UInt32(flag.rawValue) != 0 }
        if has(GNUTLS_CERT_UNEXPECTED_OWNER) {
            return QUICError(
                .certificateRejected, "The \(owner)'s certificate is not for the name \"\(name)\"",
                advice: "Connect by a name in the certificate, or give the server a certificate for this name.")
        }
        if has(GNUTLS_CERT_EXPIRED) {
            return QUICError(
                .certificateRejected, "The \(owner)'s certificate has expired",
                advice: "Renew it on the \(owner); check this machine's clock.")
        }
        if has(GNUTLS_CERT_NOT_ACTIVATED) {
            return QUICError(
                .certificateRejected, "The \(owner)'s certificate is not yet valid",
                advice: "Check the clocks of both machines.")
        }
        if has(GNUTLS_CERT_SIGNER_NOT_FOUND) || has(GNUTLS_CERT_SIGNER_NOT_CA) || has(GNUTLS_CERT_SIGNATURE_FAILURE) {
            return QUICError(
                .certificateRejected, "The \(owner)'s certificate is from an issuer that isn't trusted",
                advice: "Name the issuing certificate authority, or pin the server's key.")
        }
        if has(GNUTLS_CERT_REVOKED) {
            return QUICError(
                .certificateRejected, "The \(owner)'s certificate was revoked", advice: "Replace it on the \(owner).")
        }
        if has(GNUTLS_CERT_PURPOSE_MISMATCH) {
            return QUICError(
                .certificateRejected, "The \(owner)'s certificate is for another purpose",
                advice: "Have one issued for a TLS \(owner): its extended key usage doesn't allow that.")
        }
        return QUICError(
            .certificateRejected, "The \(owner)'s certificate can't be trusted", cause: "status \(status)",
            advice: "Look at it with certtool or openssl.")
    }

    /// Whether the TLS library's error says that no certificate came where one is required.
    static func isMissing(_ error: Int32) -> Bool {
        error == GNUTLS_E_NO_CERTIFICATE_FOUND || error == GNUTLS_E_CERTIFICATE_REQUIRED
    }
}
