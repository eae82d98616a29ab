//! TLS of the listener: its certificate, and the authorities of client certificates, read anew when their files change.
//!
//! Certificates live for weeks or hours, and whoever renews them writes files. What cannot be used leaves the old ones
//! in use, and says so until it is mended.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::caller::ClientCertificate;
use crate::config;
use crate::telemetry::Repeats;

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often a client certificate that is refused is logged, for each reason: strangers bring as many as they like.
const TELL_AGAIN: Duration = Duration::from_mins(1);
/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why there is no certificate to serve with.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting}: {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which setting names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds nothing of use.
    #[error("{setting}: {} cannot be used: {problem}", path.display())]
    Unfit {
        /// Which setting names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A connection that is agreed on.
pub(super) struct Agreed {
    pub(super) stream: TlsStream<TcpStream>,
    /// Of the client, if it has one.
    pub(super) certificate: Option<ClientCertificate>,
    /// Told when other authorities of client certificates count: then it has to be made anew.
    pub(super) outdated: CancellationToken,
}

/// The listener's TLS. Cheap to clone; clones share what was read.
#[derive(Clone)]
pub struct Tls {
    files: config::Tls,
    current: Arc<ArcSwap<Generation>>,
    refused: Arc<Refused>,
}

/// Client certificates that were refused.
#[derive(Debug)]
struct Refused {
    count: AtomicU64,
    told: Repeats,
}

impl Refused {
    /// Logs that one was refused, unless the same was logged a moment ago.
    fn tell(&self, peer: Option<SocketAddr>, why: &str, error: &dyn std::error::Error) {
        let refused_so_far = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if self.told.is_due(why) {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(%peer, why, %error, refused_so_far, "a client certificate is refused");
        }
    }
}

/// Why TLS has refused a client's certificate; `None`: something else went wrong.
fn why_refused(error: &io::Error) -> Option<&'static str> {
    use rustls::CertificateError as E;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(error) = error else {
        return None;
    };
    Some(match error {
        E::Expired | E::ExpiredContext { .. } => "it has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "it is not valid yet",
        E::UnknownIssuer | E::BadSignature => {
            "no authority in server.tls.client_ca_file has issued it"
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "its extended key usage is not that of a client"
        }
        _ => "it cannot be checked, or is not as certificates have to be",
    })
}

/// What was read at one time.
struct Generation {
    server: Arc<ServerConfig>,
    contents: Contents,
    outdated: CancellationToken,
}

/// What files held, by SHA-256: a key does not lie about in memory twice.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Contents {
    own: [u8; 32],
    client_authorities: [u8; 32],
}

struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file, and what is wrong with it.
    pub async fn load(files: config::Tls) -> Result<Self, TlsError> {
        let read = Files::read(&files).await?;
        let first = Generation::new(&files, &read, CancellationToken::new())?;
        let current = Arc::new(ArcSwap::from_pointee(first));
        let refused = Arc::new(Refused {
            count: AtomicU64::new(0),
            told: Repeats::every(TELL_AGAIN),
        });
        Ok(Self {
            files,
            current,
            refused,
        })
    }

    /// Reads them again whenever they have changed, for good.
    pub async fn follow(self) {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let problem = match self.look().await {
                Ok(has_changed) => {
                    if has_changed {
                        tracing::info!("server.tls: the files have changed, and are in use");
                    }
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            // Once for each thing that is wrong: an operator is to see it, and other things too.
            if let Some(error) = problem.as_ref().filter(|_| problem != told) {
                tracing::error!(%error, "server.tls: the files have changed, and what was read before stays in use");
            }
            told = problem;
        }
    }

    /// Takes what has changed; whether anything has.
    async fn look(&self) -> Result<bool, TlsError> {
        let read = Files::read(&self.files).await?;
        let current = self.current.load_full();
        let contents = read.contents();
        if contents == current.contents {
            return Ok(false);
        }
        let are_others = contents.client_authorities != current.contents.client_authorities;
        let outdated = if are_others {
            CancellationToken::new()
        } else {
            current.outdated.clone()
        };
        let next = Generation::new(&self.files, &read, outdated)?;
        self.current.store(Arc::new(next));
        if are_others {
            current.outdated.cancel();
        }
        Ok(true)
    }

    /// Agrees on keys with a client.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Agreed> {
        let generation = self.current.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&generation.server));
        let peer = stream.peer_addr().ok();
        let agreed = timeout(HANDSHAKE, acceptor.accept(stream)).await?;
        let stream = agreed.inspect_err(|error| {
            if let Some(why) = why_refused(error) {
                self.refused.tell(peer, why, error);
            }
        })?;
        let (_, session) = stream.get_ref();
        let certificates = session.peer_certificates().unwrap_or_default();
        let certificate = certificates.first().map(|it| ClientCertificate::read(it));
        // The connection stands: a call on it may bring a token.
        if let Some(Err(error)) = certificate.as_ref().map(ClientCertificate::caller) {
            self.refused.tell(peer, "nobody is known by it", &error);
        }
        Ok(Agreed {
            stream,
            certificate,
            outdated: generation.outdated.clone(),
        })
    }
}

impl Files {
    async fn read(files: &config::Tls) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read("server.tls.certificate_file", &files.certificate_file).await?,
            key: read("server.tls.key_file", &files.key_file).await?,
            client_authorities: match &files.client_ca_file {
                Some(path) => Some(read("server.tls.client_ca_file", path).await?),
                None => None,
            },
        })
    }

    fn contents(&self) -> Contents {
        let mut own = Sha256::new();
        own.update(Sha256::digest(&self.certificate));
        own.update(Sha256::digest(&self.key));
        let authorities = self.client_authorities.as_deref().unwrap_or_default();
        Contents {
            own: own.finalize().into(),
            client_authorities: Sha256::digest(authorities).into(),
        }
    }
}

async fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| TlsError::Unreadable {
        setting,
        path: path.to_owned(),
        source,
    })
}

impl Generation {
    fn new(
        paths: &config::Tls,
        files: &Files,
        outdated: CancellationToken,
    ) -> Result<Self, TlsError> {
        let unfit = |setting, path: &Path, problem: String| TlsError::Unfit {
            setting,
            path: path.to_owned(),
            problem,
        };
        let own = |problem| {
            unfit(
                "server.tls.certificate_file",
                &paths.certificate_file,
                problem,
            )
        };
        let chain = certificates(&files.certificate).map_err(own)?;
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|error| unfit("server.tls.key_file", &paths.key_file, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| own(error.to_string()))?;
        let builder = match (&files.client_authorities, &paths.client_ca_file) {
            (Some(pem), Some(path)) => {
                let of_clients = |problem| unfit("server.tls.client_ca_file", path, problem);
                let mut roots = RootCertStore::empty();
                for authority in certificates(pem).map_err(of_clients)? {
                    let added = roots.add(authority);
                    added.map_err(|error| of_clients(error.to_string()))?;
                }
                // Whoever has none may bring a token.
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| of_clients(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut server = builder
            .with_single_cert(chain, key)
            .map_err(|error| own(error.to_string()))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            server: Arc::new(server),
            contents: files.contents(),
            outdated,
        })
    }
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err("it holds no certificate in PEM".to_owned())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}
