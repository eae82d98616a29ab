//! What becomes of connections whose clients say nothing, and of calls whose connection is over.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use tower::service_fn;

use super::*;

const LIMITS: Limits = Limits {
    connections: 2,
    per_address: None,
    age: None,
    streams: 100,
};

struct Served {
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn served<F>(answer: impl Fn(Request<Body>) -> F + Clone + Send + 'static) -> Served
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let service = service_fn(move |request| Box::pin(answer(request)));
    let ended = tokio::spawn(serve(listener, None, service, LIMITS, shutdown.clone()));
    Served {
        address,
        shutdown,
        ended,
    }
}

async fn unimplemented(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::empty()))
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_up_no_end() {
    let Served {
        address,
        shutdown,
        ended,
    } = served(unimplemented).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut stammering = TcpStream::connect(address).await.unwrap();
    stammering.write_all(b"PRI * HT").await.unwrap();
    shutdown.cancel();
    ended.await.unwrap();
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_not_kept() {
    let served = served(unimplemented).await;
    let silent = [(); 2].map(|()| TcpStream::connect(served.address));
    for mut silent in join_all(silent).await.into_iter().map(Result::unwrap) {
        // The end, once the time for the first words is over.
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    }
}

/// Counts how many of them there are.
#[derive(Clone)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn calls_end_with_their_connection_also_those_that_were_not_begun() {
    let count = Arc::new(AtomicUsize::new(0));
    let calls = Calls::default();
    let executor = calls.executor();
    let service = {
        let count = Arc::clone(&count);
        move || {
            count.fetch_add(1, Ordering::SeqCst);
            let counted = Counted(Arc::clone(&count));
            // As HTTP/2's own calls do, it holds where it was put.
            let executor = calls::Handle::clone(&executor);
            async move {
                pending::<()>().await;
                drop((counted, executor));
            }
        }
    };
    for _ in 0..3 {
        calls.put(service());
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
    drop(calls);
    assert_eq!(count.load(Ordering::SeqCst), 0);
}
