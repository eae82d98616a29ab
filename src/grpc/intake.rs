//! Reads the message of a call, whole, before the call takes a place among those that are under way.
//!
//! Who sends headers and no message, or half of one, takes up nothing but what came: its bytes are counted, and it has a
//! few seconds.

use http_body_util::BodyExt;
use hyper::body::Bytes;
use tonic::Status;
use tonic::body::Body;

use super::limits::Held;
use super::rpcs::Rpc;
use super::status::{self, Violation};
use super::weigh::{TooMuch, weight};

/// The flag and the length that stand before a message (gRPC's `Length-Prefixed-Message`).
const PREFIX: usize = 5;
/// What a piece takes beside its bytes: its place here, and what HTTP/2 put around it.
const PIECE: usize = 64;

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
    // Kept as they came: a buffer that grows would take twice as much, and copy it again and again.
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut prefix = Prefix::default();
    while let Some(frame) = body.frame().await {
        // A client that breaks off has no use for an answer.
        let frame = frame.map_err(|error| Status::cancelled(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        prefix.take(&data);
        prefix.check(largest)?;
        pieces.push(data);
        held.grow_to(prefix.has_come + pieces.len() * PIECE)?;
    }
    let whole = match <[Bytes; 1]>::try_from(pieces) {
        Ok([only]) => only,
        Err(pieces) => pieces.concat().into(),
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

/// What has come of a message.
#[derive(Default)]
struct Prefix {
    bytes: [u8; PREFIX],
    has_come: usize,
}

impl Prefix {
    fn take(&mut self, data: &[u8]) {
        let missing = self.bytes.get_mut(self.has_come..).unwrap_or_default();
        for (to, from) in missing.iter_mut().zip(data) {
            *to = *from;
        }
        self.has_come += data.len();
    }

    /// Refuses a message by the length that stands before it, and what comes after its end.
    fn check(&self, largest: usize) -> Result<(), Status> {
        let Some(message) = self.has_come.checked_sub(PREFIX) else {
            return Ok(());
        };
        let [_, a, b, c, d] = self.bytes;
        let told = u32::from_be_bytes([a, b, c, d]);
        let told = usize::try_from(told).unwrap_or(usize::MAX);
        if told > largest {
            return Err(status::too_large(largest));
        }
        if message > told {
            return Err(status::unreadable(
                "more bytes follow the call's message: a call of this RPC has one message",
            ));
        }
        Ok(())
    }
}

fn too_much(wrong: TooMuch) -> Status {
    match wrong {
        TooMuch::Items { items, problem } => status::invalid(&[Violation {
            field: items.field.to_owned(),
            description: problem,
        }]),
        TooMuch::Elements { most } => status::unreadable(&format!(
            "the message has more than {most} fields and items, the most that one may have"
        )),
    }
}
