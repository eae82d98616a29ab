//! Client certificates: whom one names, once TLS has found out that it was issued by who may.

use std::sync::Arc;

use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Caller, now};

/// Why a client certificate names nobody.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("the client certificate cannot be read: {0}")]
    Unreadable(String),
    /// There is no name in it that could be meant.
    #[error(
        "the client certificate names nobody: expected exactly one URI (such as spiffe://DOMAIN/PATH) or, without any, \
         exactly one DNS name among its subject alternative names, and found {uris} and {dns_names}"
    )]
    NamesNobody {
        /// How many URIs it has.
        uris: usize,
        /// How many DNS names.
        dns_names: usize,
    },
    /// Its time is over.
    #[error("the client certificate has expired: connect again with a new one")]
    Expired,
}

/// A client's certificate, of one connection.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    caller: Result<Arc<Caller>, CertificateError>,
    /// Until then, in seconds since 1970.
    until: i64,
}

impl ClientCertificate {
    /// Reads one, in DER, whose chain and time TLS has checked.
    #[must_use]
    pub fn read(der: &[u8]) -> Self {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => {
                let until = certificate.validity().not_after.timestamp();
                let caller = |name: String| Arc::new(Caller::certificate(&name).until(until));
                Self {
                    caller: named(&certificate).map(caller),
                    until,
                }
            }
            Err(error) => Self {
                caller: Err(CertificateError::Unreadable(error.to_string())),
                until: i64::MAX,
            },
        }
    }

    /// Whom it names. A connection may outlast its certificate.
    ///
    /// # Errors
    /// [`CertificateError`]
    pub fn caller(&self) -> Result<Arc<Caller>, CertificateError> {
        if now() <= self.until {
            self.caller.clone()
        } else {
            Err(CertificateError::Expired)
        }
    }
}

/// The subject alternative name that is meant. Of several nobody could say which.
fn named(certificate: &X509Certificate<'_>) -> Result<String, CertificateError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| CertificateError::Unreadable(error.to_string()))?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns_names.push(*name),
            _ => {}
        }
    }
    match (uris.as_slice(), dns_names.as_slice()) {
        ([uri], _) if is_uri(uri) => Ok((*uri).to_owned()),
        ([], [name]) if is_dns_name(name) => Ok(name.to_ascii_lowercase()),
        _ => Err(CertificateError::NamesNobody {
            uris: uris.len(),
            dns_names: dns_names.len(),
        }),
    }
}

/// With a scheme: a policy that names a DNS name is not to match a URI, which an authority may give to others.
fn is_uri(name: &str) -> bool {
    let scheme = name.split_once(':').map_or("", |(scheme, _)| scheme);
    let within = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    is_plain(name)
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(within)
}

/// Without a colon, so that a policy that names a URI never matches it. An authority that gives out DNS names may look at
/// less than that.
fn is_dns_name(name: &str) -> bool {
    let within = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    is_plain(name) && name.chars().all(within)
}

/// It is written into logs and keys as it is. A wildcard is many.
fn is_plain(name: &str) -> bool {
    let is_printable = |c: char| c.is_ascii_graphic() && c != '*';
    (1..=1024).contains(&name.len()) && name.chars().all(is_printable)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn read(names: &[SanType], last_year: i32) -> Result<String, CertificateError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.not_after = date_time_ymd(last_year, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = ClientCertificate::read(certificate.der());
        read.caller().map(|caller| caller.name().to_owned())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn the_one_uri_or_else_the_one_dns_name_is_who_calls() {
        let portal = "spiffe://contoso.example/portal";
        let named = |name: &str| Ok(format!("certificate/{name}"));
        assert_eq!(read(&[uri(portal)], 4000), named(portal));
        assert_eq!(
            read(&[dns("a.example"), uri(portal), dns("b.example")], 4000),
            named(portal)
        );
        assert_eq!(
            read(&[dns("Portal.Example")], 4000),
            named("portal.example")
        );
        let nobody = |uris, dns_names| Err(CertificateError::NamesNobody { uris, dns_names });
        assert_eq!(read(&[], 4000), nobody(0, 0));
        assert_eq!(
            read(&[uri(portal), uri("spiffe://b/c")], 4000),
            nobody(2, 0)
        );
        assert_eq!(
            read(&[dns("a.example"), dns("b.example")], 4000),
            nobody(0, 2)
        );
        assert_eq!(read(&[dns("*.example")], 4000), nobody(0, 1));
        assert_eq!(read(&[uri("spiffe://a/ b")], 4000), nobody(1, 0));
    }

    #[test]
    fn a_uri_and_a_dns_name_are_never_the_same_name() {
        let nobody = |uris, dns_names| Err(CertificateError::NamesNobody { uris, dns_names });
        for text in [
            "spiffe://contoso.example/portal",
            "spiffe:portal",
            "urn:portal",
            "a/b",
        ] {
            assert_eq!(read(&[dns(text)], 4000), nobody(0, 1), "{text}");
        }
        for text in ["portal.example", "/portal", ":portal", "1a:portal", "a_b:c"] {
            assert_eq!(read(&[uri(text)], 4000), nobody(1, 0), "{text}");
        }
    }

    #[test]
    fn a_certificate_names_somebody_until_it_ends() {
        assert_eq!(
            read(&[dns("a.example")], 2001),
            Err(CertificateError::Expired)
        );
        let unreadable = ClientCertificate::read(b"no certificate").caller();
        assert!(matches!(unreadable, Err(CertificateError::Unreadable(_))));
    }
}
