//! HTTP/2, gRPC, health and reflection as clients of other makes speak them.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use support::broker::BrokerProcess;
use support::raw::{RawClient, framed};
use support::{Timing, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const SOON: Duration = Duration::from_secs(20);
/// Kinds of HTTP/2 frames (RFC 9113 §6).
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

async fn broker(world: &World) -> BrokerProcess {
    BrokerProcess::start(&world.config_with(&Timing::default(), &[])).await
}

async fn channel(broker: &BrokerProcess) -> Channel {
    let endpoint = Endpoint::from_shared(broker.address().to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let header = [a, b, c, kind, flags];
    [&header[..], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call of health, in HPACK without compression (RFC 7541): method, scheme and path from the static
/// table or by name.
fn headers() -> Vec<u8> {
    let path = b"/grpc.health.v1.Health/Check";
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path);
    block.extend_from_slice(b"\x01\x06broker");
    block.extend_from_slice(b"\x0f\x10\x10application/grpc");
    block
}

/// A client whose process ends, or whose deadline passes, cancels all its calls at once.
#[tokio::test]
async fn a_connection_outlives_calls_that_are_cancelled_together() {
    let world = World::start().await;
    let broker = broker(&world).await;
    let address = broker.address().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(4, 0, 0, &[]));
    let cancel = 8_u32.to_be_bytes();
    for call in 0..200 {
        let id = 1 + 2 * call;
        sent.extend(frame(1, 4, id, &headers()));
        sent.extend(frame(RST_STREAM, 0, id, &cancel));
    }
    sent.extend(frame(PING, 0, 0, b"are you?"));
    stream.write_all(&sent).await.unwrap();
    let answered = async {
        loop {
            let mut header = [0; 9];
            stream.read_exact(&mut header).await.unwrap();
            let [a, b, c, kind, flags, ..] = header;
            let length = u32::from_be_bytes([0, a, b, c]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            assert_ne!(kind, GOAWAY, "{}", String::from_utf8_lossy(&payload));
            if kind == PING && flags == 1 {
                return payload;
            }
        }
    };
    let answered = timeout(SOON, answered).await.expect("an answer");
    assert_eq!(answered, b"are you?");
}

#[tokio::test]
async fn what_is_no_grpc_is_answered_by_http_status() {
    let world = World::start().await;
    let broker = broker(&world).await;
    let http = reqwest::Client::builder()
        .http2_prior_knowledge()
        .timeout(SOON)
        .build()
        .unwrap();
    let grpc = "application/grpc";
    for path in [
        "aks.access.v1.AccessBrokerService/CheckAccess",
        "grpc.health.v1.Health/Check",
        "no.such.Service/Call",
    ] {
        for (method, content_type, expected) in [
            (
                Method::POST,
                Some("application/json"),
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            (Method::POST, None, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (Method::GET, Some(grpc), StatusCode::METHOD_NOT_ALLOWED),
            (Method::PUT, Some(grpc), StatusCode::METHOD_NOT_ALLOWED),
            (Method::POST, Some(grpc), StatusCode::OK),
        ] {
            let url = format!("{}/{path}", broker.address());
            let mut request = http.request(method.clone(), url);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let answer = request.body(framed(&[])).send().await.unwrap();
            assert_eq!(
                answer.status(),
                expected,
                "{method} {path} {content_type:?}"
            );
        }
    }
}

/// Messages are small, and what is compressed cannot be counted before it is decompressed: the server takes none, and
/// says which it takes.
#[tokio::test]
async fn compressed_messages_are_refused_with_the_compressions_that_are_taken() {
    let world = World::start().await;
    let broker = broker(&world).await;
    let raw = RawClient::new(&broker);
    for rpc in support::raw::SERVED {
        let mut message = framed(&[]);
        message[0] = 1;
        let refusal = raw.refusal(rpc, message, &[("grpc-encoding", "gzip")]);
        let refusal = refusal.await.expect("a refusal");
        assert_eq!(refusal.code(), tonic::Code::Unimplemented, "{rpc}");
        let taken = refusal.metadata().get("grpc-accept-encoding");
        assert_eq!(taken.expect("what is taken"), "identity", "{rpc}");
        let details = tonic_types::StatusExt::get_error_details(&refusal);
        assert!(details.error_info().is_some(), "{rpc}");
    }
}

#[tokio::test]
async fn a_watch_of_an_unknown_service_stays_open_and_a_check_of_it_is_refused() {
    let world = World::start().await;
    let broker = broker(&world).await;
    let mut health = HealthClient::new(channel(&broker).await);
    let unknown = || HealthCheckRequest {
        service: "no.such.Service".to_owned(),
    };
    let mut states = health.watch(unknown()).await.unwrap().into_inner();
    let state = states.message().await.unwrap().expect("a state");
    assert_eq!(state.status(), ServingStatus::ServiceUnknown);
    let refused = health.check(unknown()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert!(futures::poll!(states.next()).is_pending());
}

#[tokio::test]
async fn reflection_goes_on_after_a_name_that_it_does_not_know() {
    let world = World::start().await;
    let broker = broker(&world).await;
    let mut reflection = ServerReflectionClient::new(channel(&broker).await);
    let names = [
        "no.such.Thing",
        "aks.access.v1.AZURE_ROLE_RBAC_READER",
        "aks.access.v1.AccessBrokerService",
    ];
    let questions = names.map(|name| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(name.to_owned())),
    });
    let answers = reflection.server_reflection_info(futures::stream::iter(questions));
    let answers = answers.await.unwrap().into_inner();
    let answers: Vec<_> = answers
        .map(|answer| answer.unwrap().message_response)
        .collect()
        .await;
    let [
        Some(MessageResponse::ErrorResponse(unknown)),
        Some(MessageResponse::FileDescriptorResponse(_)),
        Some(MessageResponse::FileDescriptorResponse(_)),
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert_eq!(unknown.error_code, i32::from(tonic::Code::NotFound));
}
