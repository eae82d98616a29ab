//! Reads the message of a call, whole, before the call takes a place among those that are under way.
//!
//! Who sends headers and no message, or half of one, takes up nothing but what came: its bytes are counted, and it has a
//! few seconds.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use prost::bytes::BytesMut;
use tonic::Status;
use tonic::body::Body;

use super::limits::Held;
use super::rpcs::Rpc;
use super::status::{self, Violation};
use super::weigh::{TooMuch, weight};

/// How long a message may take to be complete, once its call has begun.
pub(super) const COMPLETE_WITHIN: Duration = Duration::from_secs(5);

/// The flag and the length that stand before a message (gRPC's `Length-Prefixed-Message`).
const PREFIX: usize = 5;

/// Reads the one message of a call, its prefix included, as it came. `held` grows with what has come and, in the end, to
/// what the message takes once it is decoded. What is no whole message is given back as it is: who decodes it says what
/// is wrong.
///
/// # Errors
/// What the caller is to be told: the message is too large, or there is no room for it.
pub(super) async fn message(
    mut body: Body,
    rpc: &Rpc,
    largest: usize,
    held: &mut Held,
) -> Result<Bytes, Status> {
    let largest = largest.min(rpc.largest_message);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // A client that breaks off has no use for an answer.
        let frame = frame.map_err(|error| Status::cancelled(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let has_come = first.len().max(rest.len()) + data.len();
        if has_come > PREFIX + largest {
            return Err(status::too_large(largest));
        }
        held.grow_to(has_come)?;
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        let so_far = if rest.is_empty() { &first } else { &rest[..] };
        check_length(so_far, largest)?;
    }
    let whole = if rest.is_empty() {
        first
    } else {
        rest.freeze()
    };
    if let Some((prefix, message)) = whole.split_at_checked(PREFIX)
        && is_plain(prefix)
    {
        let decoded = weight(rpc, message).map_err(too_much)?;
        held.grow_to(whole.len() + decoded)?;
    }
    Ok(whole)
}

/// Whether the message is not compressed. One that is gets refused by who would decompress it.
const fn is_plain(prefix: &[u8]) -> bool {
    matches!(prefix, [0, ..])
}

/// Refuses a message by the length that stands before it, and what comes after its end.
fn check_length(so_far: &[u8], largest: usize) -> Result<(), Status> {
    let Some((&[_, a, b, c, d], message)) = so_far.split_first_chunk::<PREFIX>() else {
        return Ok(());
    };
    let told = u32::from_be_bytes([a, b, c, d]);
    let told = usize::try_from(told).unwrap_or(usize::MAX);
    if told > largest {
        return Err(status::too_large(largest));
    }
    if message.len() > told {
        return Err(status::unreadable(
            "more bytes follow the call's message: a call of this RPC has one message",
        ));
    }
    Ok(())
}

fn too_much(wrong: TooMuch) -> Status {
    match wrong {
        TooMuch::Items(items, count) => status::invalid(&[Violation {
            field: items.field.to_owned(),
            description: format!("{count} {}; at most {}", items.what, items.most),
        }]),
        TooMuch::Elements { most } => status::unreadable(&format!(
            "the message has more than {most} fields and items, the most that one may have"
        )),
    }
}
