//! A certificate authority of the emulator's own, and a server certificate from it.
//!
//! Azure speaks HTTPS only, and so do clients that check the authority's scheme. The CA stays the same
//! across restarts with a state directory, so that whoever trusts it goes on doing so.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::files;

/// No certificate could be made or read.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Making or reading a certificate or key failed.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate is none that TLS takes.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The state directory could not be read or written.
    #[error("state directory: {0}")]
    Files(#[from] io::Error),
}

/// What servers need, and what clients must trust.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) ca_pem: String,
}

impl Tls {
    /// Loads the CA from `directory`, or makes one and leaves it there.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, TlsError> {
        let key_pem = files::keep(directory, "ca-key.pem", || {
            Ok::<_, TlsError>(KeyPair::generate()?.serialize_pem())
        })?;
        let key = KeyPair::from_pem(&key_pem)?;
        let params = ca_params();
        let ca_pem = files::keep(directory, "ca.pem", || {
            Ok::<_, TlsError>(params.self_signed(&key)?.pem())
        })?;
        let acceptor = acceptor(&Issuer::new(params, key))?;
        Ok(Self { acceptor, ca_pem })
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Azure emulator CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn acceptor(ca: &Issuer<'_, KeyPair>) -> Result<TlsAcceptor, TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Azure emulator");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, ca)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // The provider is named: a default for the whole process is the embedding program's to choose.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    // HTTP/1.1 only: there one call is one connection's, and cutting it cuts no other.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
