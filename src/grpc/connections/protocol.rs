//! Every limit of HTTP/2 that a server can set, each with its reason. A default of a library is nobody's decision.

use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper_util::rt::TokioTimer;

/// How often an idle connection is asked whether it still lives. Load balancers drop silent ones, in
/// Azure after four minutes.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// How long it has to answer.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);
/// The headers of one call, in bytes. Tokens are long where somebody is in many groups; what is too long for a token is
/// refused by whoever reads tokens, with a reason, where HTTP/2 alone would only end the stream.
const LARGEST_HEADERS: u32 = 128 * 1024;
/// How many bytes of a call's message the server takes before somebody reads them. A check fits, and nearly every
/// batch; a larger message takes a few more round trips.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for all calls of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How many bytes of an answer the server hands to a connection that does not take them. The rest waits with its call,
/// which has a time limit.
const SEND_BUFFER: usize = 64 * 1024;
/// The largest frame, in bytes: the least that HTTP/2 allows (RFC 9113 §4.2). Larger ones make others wait for longer.
const FRAME: u32 = 16 * 1024;
/// The table of headers that a connection remembers for its client, in bytes: HTTP/2's own default (RFC 9113 §6.5.2).
/// A token is too long for it, and is sent anew with each call.
const HEADER_TABLE: u32 = 4096;
/// How many streams the server may reset for a client's errors, before it takes them for an attack and closes the
/// connection.
const RESETS_FOR_ERRORS: usize = 1024;

/// Makes connections with these limits. `streams`: how many calls and streams one connection may have at once.
pub(super) fn builder<E: Clone>(executor: E, streams: u32) -> Builder<E> {
    let mut builder = Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .max_concurrent_streams(streams)
        // A client whose own deadline or process ends cancels all its calls at once. The library's 20 would end the
        // connection for it, and with it the calls of others who share the connection behind a proxy. Calls that are
        // reset before anybody accepted them cost little, and no connection can have more of them than streams
        // (CVE-2023-44487 is about servers that let them pile up without a limit).
        .max_pending_accept_reset_streams(usize::try_from(streams).unwrap_or(usize::MAX))
        .max_local_error_reset_streams(RESETS_FOR_ERRORS)
        .max_header_list_size(LARGEST_HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // A window that grows by itself is no bound.
        .adaptive_window(false)
        .max_send_buf_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .header_table_size(HEADER_TABLE);
    builder
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::Empty;
    use hyper::body::Bytes;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What the server tells its clients in its first frame, by the ids of RFC 9113 §6.5.2.
    #[tokio::test]
    async fn the_server_announces_each_limit_that_has_an_id() {
        let (mut client, server) = duplex(64 * 1024);
        let answer =
            service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
        let connection =
            builder(TokioExecutor::new(), 77).serve_connection(TokioIo::new(server), answer);
        let settings = async {
            let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            client.write_all(greeting).await.unwrap();
            let mut header = [0; 9];
            client.read_exact(&mut header).await.unwrap();
            let [_, _, length, kind, ..] = header;
            assert_eq!(kind, 4, "a SETTINGS frame");
            let mut body = vec![0; usize::from(length)];
            client.read_exact(&mut body).await.unwrap();
            body
        };
        let body = tokio::select! {
            body = settings => body,
            ended = connection => panic!("the connection has ended: {ended:?}"),
        };
        let mut told: Vec<(u16, u32)> = body
            .chunks_exact(6)
            .map(|row| {
                let id = u16::from_be_bytes([row[0], row[1]]);
                (id, u32::from_be_bytes([row[2], row[3], row[4], row[5]]))
            })
            .collect();
        told.sort_unstable();
        let expected = [
            (0x1, HEADER_TABLE),
            (0x3, 77),
            (0x4, STREAM_WINDOW),
            (0x5, FRAME),
            (0x6, LARGEST_HEADERS),
        ];
        // 0x2 (ENABLE_PUSH) is a client's.
        assert_eq!(told, expected);
    }
}
