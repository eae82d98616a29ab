//! One connection over TLS, made by hand: a channel would quietly make another.

use std::io;
use std::sync::{Arc, Mutex};

use aks_access_broker::grpc::proto::access_broker_service_client::AccessBrokerServiceClient;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use crate::authority::{Authority, Issued};
use crate::support::bearer::Bearer;
use crate::support::broker::Client;

/// A connection to a broker.
pub(crate) struct Connection {
    channel: Channel,
    /// The broker's certificate, in DER.
    pub(crate) certificate: Vec<u8>,
}

/// Connects to `http://HOST:PORT`, trusting an authority, with or without a certificate of one's own.
pub(crate) async fn connect(
    address: &str,
    trusted: &Authority,
    own: Option<&Issued>,
) -> io::Result<Connection> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes());
            let chain = vec![certificate.unwrap()];
            config.with_client_auth_cert(chain, key.unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    let certificate = certificates[0].to_vec();
    let channel = over(stream).await.map_err(io::Error::other)?;
    Ok(Connection {
        channel,
        certificate,
    })
}

/// A channel over this stream, and over no other.
async fn over(stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let stream = Arc::new(Mutex::new(Some(stream)));
    let connector = service_fn(move |_| {
        let only = stream.lock().unwrap().take();
        async move {
            only.map(TokioIo::new)
                .ok_or_else(|| io::Error::other("it is gone"))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await
}

impl Connection {
    pub(crate) fn client(&self, token: Option<&str>) -> Client {
        AccessBrokerServiceClient::with_interceptor(self.channel.clone(), Bearer::new(token))
    }

    /// Whether the broker answers on it.
    pub(crate) async fn is_alive(&self) -> bool {
        let mut health = HealthClient::new(self.channel.clone());
        health.check(HealthCheckRequest::default()).await.is_ok()
    }

    /// Waits until the broker says that it serves.
    pub(crate) async fn until_serving(&self) {
        let mut health = HealthClient::new(self.channel.clone());
        let watched = health.watch(HealthCheckRequest::default()).await;
        let mut states = watched.unwrap().into_inner();
        while let Some(state) = states.message().await.unwrap() {
            if state.status() == ServingStatus::Serving {
                return;
            }
        }
        panic!("health ended before the broker served");
    }
}
