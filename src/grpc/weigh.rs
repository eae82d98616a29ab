//! How much a message takes once it is decoded, found out without decoding it.
//!
//! Two bytes on the wire can become a struct of some hundred bytes: an empty item of a list. So the elements of a
//! message are counted first, and their number bounds what decoding takes.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

use super::DESCRIPTORS;
use super::rpcs::{Items, Rpc};

/// How many fields a message may have set, those of its parts included. A batch of a thousand checks has about twelve
/// in each.
const MOST_ELEMENTS: usize = 32 * 1024;
/// How many bytes an element takes once it is decoded, as a rule: strings, lists and small messages do with less. The
/// items of a list that is counted are larger, and few.
const ELEMENT: usize = 64;
/// A shorter message is not looked at: it cannot have enough elements to matter.
const LONG: usize = 16 * 1024;
/// What a byte of a message that is not looked at can become: two of them are an empty string, whose place in a list
/// takes 24 bytes, and a list has room for twice as many.
const SWELLS: usize = 24;
/// The deepest message of the contract has less than that. The decoder has a limit of its own.
const DEEPEST: usize = 16;

/// What is wrong with a message before it is decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TooMuch {
    /// More items than a request may have.
    Items {
        /// Which.
        items: Items,
        /// What is wrong with their number.
        problem: String,
    },
    /// More elements than a message may have.
    Elements {
        /// How many it may have.
        most: usize,
    },
}

/// The parts of a message that are messages themselves, by the number of their field.
type Parts = HashMap<u32, String>;

/// Of every message of the contract, by its full name.
static SHAPES: LazyLock<HashMap<String, Parts>> = LazyLock::new(|| {
    // A test decodes the descriptors, which are compiled in.
    let contract = DescriptorPool::decode(DESCRIPTORS).unwrap_or_default();
    let shapes = contract.all_messages().map(|message| {
        let name = message.full_name().to_owned();
        (name, parts(&message))
    });
    shapes.collect()
});

fn parts(message: &MessageDescriptor) -> Parts {
    let parts = message.fields().filter_map(|field| match field.kind() {
        Kind::Message(part) => Some((field.number(), part.full_name().to_owned())),
        _ => None,
    });
    parts.collect()
}

/// How many bytes a message of this RPC takes once it is decoded, the message itself included.
///
/// # Errors
/// [`TooMuch`]. What is no message at all weighs what its bytes do: who decodes it says what is wrong.
pub(super) fn weight(rpc: &Rpc, message: &[u8]) -> Result<usize, TooMuch> {
    if let Some(items) = rpc.items {
        if let Some(problem) = items.too_many(count(items.tag, message)) {
            return Err(TooMuch::Items { items, problem });
        }
    } else if message.len() <= LONG {
        return Ok(message.len().saturating_mul(SWELLS));
    }
    let mut left = MOST_ELEMENTS;
    let name = format!("aks.access.v1.{}", rpc.request);
    match walk(SHAPES.get(&name), message, &mut left, 0) {
        Ok(()) | Err(Stopped::Malformed) => {
            let elements = MOST_ELEMENTS - left;
            Ok(message.len() * 2 + elements * ELEMENT)
        }
        Err(Stopped::TooMany) => Err(TooMuch::Elements {
            most: MOST_ELEMENTS,
        }),
    }
}

enum Stopped {
    TooMany,
    Malformed,
}

impl From<DecodeError> for Stopped {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// How often a field is set at the top of a message, as far as it can be read.
fn count(tag: u32, mut message: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Some((found, _))) = next(&mut message) {
        count += usize::from(found == tag);
    }
    count
}

/// The number and the bytes of the next field; `None` at the end.
fn next<'a>(message: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>, Stopped> {
    if message.is_empty() {
        return Ok(None);
    }
    let (tag, wire) = decode_key(message)?;
    let length = match wire {
        WireType::Varint => {
            decode_varint(message)?;
            0
        }
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => decode_varint(message)?,
        // The contract has none.
        WireType::StartGroup | WireType::EndGroup => return Err(Stopped::Malformed),
    };
    let length = usize::try_from(length).map_err(|_| Stopped::Malformed)?;
    let value = message.get(..length).ok_or(Stopped::Malformed)?;
    message.advance(length);
    Ok(Some((tag, value)))
}

/// Takes every element of a message and of its parts from what is `left`.
fn walk(
    parts: Option<&Parts>,
    mut message: &[u8],
    left: &mut usize,
    depth: usize,
) -> Result<(), Stopped> {
    if depth > DEEPEST {
        return Err(Stopped::TooMany);
    }
    while let Some((tag, value)) = next(&mut message)? {
        *left = left.checked_sub(1).ok_or(Stopped::TooMany)?;
        let part = parts.and_then(|parts| parts.get(&tag));
        if let Some(part) = part.and_then(|name| SHAPES.get(name)) {
            walk(Some(part), value, left, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::proto::{BatchCheckAccessRequest, CheckAccessRequest, GrantRequest};
    use super::super::rpcs::{CHECKS, RPCS, of_path};
    use super::*;

    fn rpc(name: &str) -> &'static Rpc {
        of_path(name).unwrap()
    }

    #[test]
    fn every_request_of_the_contract_has_a_shape() {
        for rpc in RPCS {
            let name = format!("aks.access.v1.{}", rpc.request);
            assert!(SHAPES.contains_key(&name), "{name}");
        }
    }

    #[test]
    fn empty_items_are_counted_however_many_there_are() {
        let empty = [0x0a, 0x00].repeat(1_001);
        let found = weight(rpc("BatchCheckAccess"), &empty);
        let expected = TooMuch::Items {
            items: CHECKS,
            problem: "1001 checks; at most 1000".to_owned(),
        };
        assert_eq!(found, Err(expected));
        let empty = [0x0a, 0x00].repeat(1_000);
        assert!(weight(rpc("BatchCheckAccess"), &empty).is_ok());
    }

    #[test]
    fn a_thousand_checks_are_light() {
        let check = CheckAccessRequest {
            cluster: "c".repeat(400),
            ..CheckAccessRequest::default()
        };
        let batch = BatchCheckAccessRequest {
            requests: vec![check; 1_000],
            ..BatchCheckAccessRequest::default()
        };
        let weight = weight(rpc("BatchCheckAccess"), &batch.encode_to_vec()).unwrap();
        assert!(weight < 1024 * 1024, "{weight}");
    }

    /// No RPC's largest message, filled with whatever is smallest on the wire, takes more than 16 MiB.
    #[test]
    fn the_heaviest_message_of_each_rpc_has_a_bound() {
        for rpc in RPCS {
            for tag in 1..=15_u8 {
                let field = [tag << 3 | 2, 0];
                let most = field.repeat(rpc.largest_message / 2);
                // What is refused takes nothing more.
                let weight = weight(&rpc, &most).unwrap_or_default();
                assert!(weight <= 16 * 1024 * 1024, "{} {tag}: {weight}", rpc.name);
            }
        }
    }

    #[test]
    fn elements_of_parts_count_as_well() {
        let namespaces = [0x22, 0x00].repeat(MOST_ELEMENTS + 1);
        let mut grant = GrantRequest::default().encode_to_vec();
        // `GrantRequest.access`
        prost::encoding::bytes::encode(4, &namespaces, &mut grant);
        let found = weight(rpc("Grant"), &grant);
        let expected = TooMuch::Elements {
            most: MOST_ELEMENTS,
        };
        assert_eq!(found, Err(expected));
    }

    #[test]
    fn what_is_no_message_weighs_little_and_breaks_nothing() {
        for bytes in [
            vec![0xff; 20_000],
            vec![0x0b; 20_000],
            vec![0x0a, 0xff, 0xff],
        ] {
            for rpc in RPCS {
                assert!(weight(&rpc, &bytes).is_ok(), "{}", rpc.name);
            }
        }
    }
}
