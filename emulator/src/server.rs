//! Connections: accepted, spoken TLS and HTTP/1.1 with, and cut when a fault says so.
//!
//! An accept loop of our own, because a cut must be a closed TCP connection without a single byte of an
//! answer: hyper closes when a service fails, so "cut" is the one error of ours.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::admin;
use crate::core::Core;
use crate::exchange::exchange;
use crate::history::Service;
use crate::options::StartError;

/// The connection is to be closed without an answer.
#[derive(Debug, Error)]
#[error("the connection is cut")]
pub(crate) struct Cut;

/// Who answers on a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    Azure(Service),
    Admin,
}

/// A socket that will listen, and its port.
pub(crate) async fn bind(port: u16) -> Result<(TcpListener, u16), StartError> {
    let failed = |error| StartError::Listen { port, error };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

/// Accepts connections until the emulator stops.
pub(crate) fn serve(core: &Arc<Core>, listener: TcpListener, tls: TlsAcceptor, door: Door) {
    let core = Arc::clone(core);
    let stop = core.stop.clone();
    core.clone().tasks.spawn(async move {
        stop.run_until_cancelled(accept(core, listener, tls, door))
            .await;
    });
}

async fn accept(
    core: Arc<Core>,
    listener: TcpListener,
    tls: TlsAcceptor,
    door: Door,
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(Arc::clone(&core), stream, tls.clone(), door);
                let stop = core.stop.clone();
                core.tasks.spawn(async move {
                    // How a connection ends is no news: clients hang up as they like, and cuts are ours.
                    if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                        tracing::debug!(%error, "connection ended");
                    }
                });
            }
            // Out of file descriptors, most likely: others will be given back.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    core: Arc<Core>,
    stream: TcpStream,
    tls: TlsAcceptor,
    door: Door,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(tls.accept(stream).await?);
    let service = service_fn(move |request| answer(Arc::clone(&core), door, request));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
    connection.await.map_err(io::Error::other)
}

async fn answer(
    core: Arc<Core>,
    door: Door,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Cut> {
    match door {
        Door::Azure(service) => exchange(core, service, request).await,
        Door::Admin => admin::exchange(&core, request).await,
    }
}
