//! The port where Prometheus reads the metrics: `GET /metrics`, in plain HTTP/1.1.
//!
//! It asks nobody who they are, and tells nothing of persons or clusters. Whoever can reach it can take up only a few
//! connections, each for a short time.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::metrics;

/// Who scrapes are a few servers, one call each time.
const CONNECTIONS: usize = 16;
/// How long a connection lives, from its first byte to its last. Prometheus gives up after ten seconds by default.
const WHOLE: Duration = Duration::from_secs(10);
/// After accepting a connection has failed for want of something (file descriptors, memory), the next try is so much
/// later.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The content type of Prometheus's text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the metrics for as long as it is polled.
pub async fn serve_metrics(listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            // Nobody closes the semaphore.
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    if let Ok(Err(error)) = timeout(WHOLE, connection(stream)).await {
                        tracing::debug!(%error, "a connection for the metrics has failed");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for the metrics cannot be accepted");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream) -> hyper::Result<()> {
    http1::Builder::new()
        .keep_alive(false)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| ready(Ok::<_, Infallible>(answer(&request)))),
        )
        .await
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = if request.uri().path() != "/metrics" {
        (
            StatusCode::NOT_FOUND,
            "the metrics are at /metrics\n".to_owned(),
        )
    } else if request.method() != Method::GET {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "read them with GET\n".to_owned(),
        )
    } else {
        match metrics().in_text() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
            }
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let text_format = header::HeaderValue::from_static(TEXT_FORMAT);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, text_format);
    response
}
