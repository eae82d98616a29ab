//! Values that are written as text and parsed into types that can only exist well-formed.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Reads one value; the type's own error says what was expected.
pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?
        .parse()
        .map_err(D::Error::custom)
}

/// Writes one value as it is displayed.
pub(super) fn serialize<T: Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The same for lists. What is wrong with an element is told with its place.
pub(super) mod list {
    use super::{Deserialize, Deserializer, Display, FromStr, Serializer};

    /// One element. serde knows its place, which an error after the whole list was read would lack.
    #[derive(Deserialize)]
    #[serde(
        transparent,
        bound(deserialize = "T: FromStr, <T as FromStr>::Err: Display")
    )]
    struct Element<T>(#[serde(deserialize_with = "super::deserialize")] T);

    pub(in super::super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let elements = Vec::<Element<T>>::deserialize(deserializer)?;
        Ok(elements.into_iter().map(|Element(value)| value).collect())
    }

    pub(in super::super) fn serialize<T: Display, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }
}
