//! Pages of a list: how long one is, and where the next one begins.

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::domain::hex::hex;

/// How many rows a page has at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSize(usize);

/// A page size that cannot be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("page_size is {0}: expected 1 to {max}, or 0 for {default}", max = PageSize::MAX, default = PageSize::DEFAULT)]
pub struct InvalidPageSize(pub i32);

impl PageSize {
    /// The most rows of any page.
    pub const MAX: usize = 1_000;
    /// Where nothing is asked for.
    pub const DEFAULT: usize = 50;

    /// Takes 0 for the default.
    ///
    /// # Errors
    /// [`InvalidPageSize`] if it is negative, or more than [`MAX`](Self::MAX).
    pub fn try_new(asked: i32) -> Result<Self, InvalidPageSize> {
        match usize::try_from(asked) {
            Ok(0) => Ok(Self(Self::DEFAULT)),
            Ok(size) if size <= Self::MAX => Ok(Self(size)),
            _ => Err(InvalidPageSize(asked)),
        }
    }

    /// The number of rows.
    #[must_use]
    pub const fn rows(self) -> usize {
        self.0
    }
}

/// A page token that this broker did not make, or made for another filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("page_token is not one that this list gave for this filter: begin again without")]
pub struct InvalidPageToken;

/// The token of the page behind the row with `key`, for this list and filter only. Opaque to callers, and
/// no secret: whoever makes one up sees nothing that a list without would not show.
#[must_use]
pub fn token_behind(key: &str, filter: &str) -> String {
    format!("{}{}", hex(&mark(filter)), hex(key.as_bytes()))
}

/// The key in a token of [`token_behind`].
///
/// # Errors
/// [`InvalidPageToken`] for another filter's, or anything else.
pub fn key_in(token: &str, filter: &str) -> Result<String, InvalidPageToken> {
    let bytes = unhex(token).ok_or(InvalidPageToken)?;
    let key = bytes
        .strip_prefix(mark(filter).as_slice())
        .ok_or(InvalidPageToken)?;
    String::from_utf8(key.to_vec()).map_err(|_| InvalidPageToken)
}

fn mark(filter: &str) -> [u8; 4] {
    let digest = Sha256::digest(filter.as_bytes());
    [digest[0], digest[1], digest[2], digest[3]]
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_1_to_1000_rows() {
        assert_eq!(PageSize::try_new(0).unwrap().rows(), 50);
        assert_eq!(PageSize::try_new(1_000).unwrap().rows(), 1_000);
        assert!(PageSize::try_new(1_001).is_err());
        let error = PageSize::try_new(-1).unwrap_err().to_string();
        assert_eq!(error, "page_size is -1: expected 1 to 1000, or 0 for 50");
    }

    #[test]
    fn a_token_goes_with_its_filter_and_no_other() {
        let token = token_behind("/subscriptions/ä", "clusters prod");
        assert_eq!(
            key_in(&token, "clusters prod").as_deref(),
            Ok("/subscriptions/ä")
        );
        assert_eq!(key_in(&token, "clusters test"), Err(InvalidPageToken));
        for made_up in ["", "x", "zz", "00", "0123456789", &token[1..]] {
            assert_eq!(
                key_in(made_up, "clusters prod"),
                Err(InvalidPageToken),
                "{made_up}"
            );
        }
    }
}
