//! Callers without a role, or without a token, that take what they can, in all the ways that `tests/strangers.rs` holds
//! the broker to.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use prost::Message;
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::interval;
use tokio_util::task::AbortOnDropHandle;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::report::AnyError;

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const CHECK: &str = "/aks.access.v1.AccessBrokerService/CheckAccess";
const BATCH: &str = "/aks.access.v1.AccessBrokerService/BatchCheckAccess";

/// Calls of each connection in one volley.
const CALLS: usize = 250;
/// A volley begins when the last one is over, and not sooner than this after its beginning: what the attackers
/// themselves take of the processor they share is not the broker's.
const VOLLEY: Duration = Duration::from_millis(250);
/// Connections of each kind of attack.
const CONNECTIONS: usize = 4;

/// All of them at work, until this is dropped.
pub(crate) struct Attack(Vec<AbortOnDropHandle<()>>);

type Begun = (ResponseFuture, SendStream<Bytes>);

impl Attack {
    /// Begins, with the token of somebody who has no role. Comes back when all have connected.
    pub(crate) async fn begin(address: SocketAddr, token: &str) -> Result<Self, AnyError> {
        let mut attackers = Vec::new();
        for _ in 0..CONNECTIONS {
            let unread = connected(address, 0).await?;
            attackers.push(spawn(streams_that_nobody_reads(unread)));
            let silent = connected(address, 65_535).await?;
            attackers.push(spawn(calls_without_a_message(silent, token.to_owned())));
        }
        let empty = connected(address, 65_535).await?;
        attackers.push(spawn(batches_of_nothing(empty, token.to_owned())));
        Ok(Self(attackers))
    }

    /// How many connections attack.
    pub(crate) const fn connections(&self) -> usize {
        self.0.len()
    }
}

fn spawn(attack: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(attack))
}

async fn connected(address: SocketAddr, window: u32) -> Result<SendRequest<Bytes>, AnyError> {
    let stream = TcpStream::connect(address).await?;
    let (requests, connection) = Builder::new()
        .initial_window_size(window)
        .handshake(stream)
        .await?;
    tokio::spawn(connection);
    Ok(requests)
}

async fn begun(
    requests: &SendRequest<Bytes>,
    path: &str,
    token: Option<&str>,
) -> Result<Begun, AnyError> {
    let mut request = Request::post(format!("http://broker{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut ready = requests.clone().ready().await?;
    Ok(ready.send_request(request.body(())?, false)?)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// Waits for the end of an answer, whatever it is.
async fn over(answer: ResponseFuture) {
    let Ok(answer): Result<Response<RecvStream>, _> = answer.await else {
        return;
    };
    let mut body = answer.into_body();
    while let Some(Ok(_)) = body.data().await {}
}

async fn streams_that_nobody_reads(requests: SendRequest<Bytes>) {
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(
            "aks.access.v1.AccessBrokerService".to_owned(),
        )),
    };
    let six = Bytes::from(framed(&question.encode_to_vec()).repeat(6));
    let mut volleys = interval(VOLLEY);
    loop {
        volleys.tick().await;
        let mut answers = Vec::new();
        for _ in 0..CALLS {
            let Ok((answer, mut questions)) = begun(&requests, REFLECTION, None).await else {
                return;
            };
            // Whatever comes of it.
            let _ = questions.send_data(six.clone(), false);
            answers.push(async move {
                over(answer).await;
                drop(questions);
            });
        }
        join_all(answers).await;
    }
}

async fn calls_without_a_message(requests: SendRequest<Bytes>, token: String) {
    let mut volleys = interval(VOLLEY);
    loop {
        volleys.tick().await;
        let mut answers = Vec::new();
        for _ in 0..CALLS {
            let Ok((answer, message)) = begun(&requests, CHECK, Some(&token)).await else {
                return;
            };
            answers.push(async move {
                over(answer).await;
                drop(message);
            });
        }
        join_all(answers).await;
    }
}

async fn batches_of_nothing(requests: SendRequest<Bytes>, token: String) {
    let empty = Bytes::from(framed(&[0x0a, 0x00].repeat(512 * 1024)));
    let mut volleys = interval(VOLLEY / 4);
    while let Ok((answer, mut message)) = begun(&requests, BATCH, Some(&token)).await {
        volleys.tick().await;
        let mut rest = empty.clone();
        while !rest.is_empty() {
            message.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|context| message.poll_capacity(context)).await;
            let Some(Ok(room)) = room else { break };
            let piece = rest.split_to(room.min(rest.len()));
            if message.send_data(piece, rest.is_empty()).is_err() {
                break;
            }
        }
        over(answer).await;
    }
}
