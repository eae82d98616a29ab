//! Entries of streams, whatever their bytes are. The client's own types reject a whole answer if one entry has a value
//! that is not text.

use super::error::StoreError;
use super::read::Fields;
use crate::domain::freshness::Position;

/// An entry as Redis answers it: its id, and its fields.
pub(super) type RawEntry = (Vec<u8>, Fields);

/// An entry whose fields are read one by one.
pub(super) struct Entry<'a> {
    pub(super) position: Position,
    fields: &'a Fields,
}

impl<'a> Entry<'a> {
    /// # Errors
    /// [`StoreError::Unreadable`] where the id is none that Redis gives.
    pub(super) fn read((id, fields): &'a RawEntry, key: &str) -> Result<Self, StoreError> {
        Ok(Self {
            position: position(id, key)?,
            fields,
        })
    }

    /// The value of a field, if there is one.
    pub(super) fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(field, _)| field == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    /// The value of a field, if there is one and it is text.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.bytes(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// The position of an entry in its stream.
///
/// # Errors
/// [`StoreError::Unreadable`] where the id is none that Redis gives.
pub(super) fn position(id: &[u8], key: &str) -> Result<Position, StoreError> {
    let id = String::from_utf8_lossy(id);
    id.parse().map_err(|_| StoreError::Unreadable {
        key: key.to_owned(),
        problem: format!("an entry's id is {id:?}"),
    })
}
