//! Why a request failed: the innermost cause, which says "connection refused" where the outer ones say
//! "error sending request" or "failed to execute".

use std::error::Error;
use std::io;

use rustls::CertificateError;

/// The innermost cause of an error, or the error itself. Where it is a certificate that nobody trusts here,
/// the setting that may mend it is named.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = beneath(innermost) {
        innermost = cause;
    }
    let remedy = if is_untrusted(innermost) {
        "; azure.ca_file names further authorities to trust: an emulator's, or a proxy's that opens TLS"
    } else {
        ""
    };
    format!("{innermost}{remedy}")
}

/// An I/O error that wraps another one names as its source what is beneath that.
fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .map(|wrapped| -> &'a (dyn Error + 'static) { wrapped })
        .or_else(|| error.source())
}

/// A bad signature is what an authority of a trusted one's name makes, such as the emulator's of yesterday.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    matches!(
        error.downcast_ref(),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        ))
    )
}
