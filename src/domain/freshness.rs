//! How fresh the data must be that an answer rests on, and the tokens by which answers follow each other.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

use super::ids::InstanceId;

/// A place in the stream of the broker's own changes: what came later is behind it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    /// Milliseconds of the store's clock.
    pub millis: u64,
    /// Which of that millisecond's.
    pub sequence: u64,
}

/// What an answer took into account: a place in the stream of changes of one broker, and where it comes from an answer,
/// up to when it knew what Azure had.
///
/// Written as `INSTANCE/POSITION` or `INSTANCE/POSITION@MILLISECONDS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConsistencyToken {
    /// Whose stream of changes: a place in another broker's says nothing about this one's.
    pub broker: InstanceId,
    /// All changes up to here.
    pub position: Position,
    /// Everything that Azure had by then.
    pub as_of: Option<Timestamp>,
}

/// A text that is no such token.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "{value:?} is not a consistency_token: expected the one of a finished job, or of an earlier answer, as it was given"
)]
pub struct InvalidToken {
    /// What was given, shortened.
    pub value: String,
}

/// How fresh the data must be that an answer rests on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Freshness {
    /// As fresh as the server is configured to be.
    Configured,
    /// No older than this.
    AtMost(Duration),
    /// All that this token's answer knew.
    AtLeast(ConsistencyToken),
    /// Asked of Azure now.
    Now,
}

impl Position {
    /// The first place that may be given at a moment.
    #[must_use]
    pub fn at(time: Timestamp) -> Self {
        Self {
            millis: u64::try_from(time.as_millisecond()).unwrap_or_default(),
            sequence: 0,
        }
    }
}

impl FromStr for Position {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let invalid = || InvalidToken {
            value: text.chars().take(80).collect(),
        };
        let (millis, sequence) = text.split_once('-').ok_or_else(invalid)?;
        let number = |text: &str| {
            let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| text.parse().ok()).flatten()
        };
        Ok(Self {
            millis: number(millis).ok_or_else(invalid)?,
            sequence: number(sequence).ok_or_else(invalid)?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for ConsistencyToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let invalid = || InvalidToken {
            value: text.chars().take(80).collect(),
        };
        let (broker, text) = text.split_once('/').ok_or_else(invalid)?;
        let (position, as_of) = match text.split_once('@') {
            None => (text, None),
            Some((position, millis)) => {
                let millis = millis.parse().map_err(|_| invalid())?;
                let time = Timestamp::from_millisecond(millis).map_err(|_| invalid())?;
                (position, Some(time))
            }
        };
        Ok(Self {
            broker: broker.parse().map_err(|_| invalid())?,
            position: position.parse().map_err(|_| invalid())?,
            as_of,
        })
    }
}

impl fmt::Display for ConsistencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.broker, self.position)?;
        match self.as_of {
            Some(time) => write!(f, "@{}", time.as_millisecond()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        let broker = "0198d5d0-0000-7000-8000-000000000001";
        for text in ["0-0", "1790000000000-3", "1790000000000-3@1790000000123"] {
            let text = format!("{broker}/{text}");
            let token: ConsistencyToken = text.parse().unwrap();
            assert_eq!(token.to_string(), text);
            assert_eq!(token.broker.to_string(), broker);
        }
        for text in [
            "",
            "x",
            "1",
            "1-",
            "-1",
            "1-x",
            "+1-2",
            "1-2@",
            "1-2@x",
            "1-2@9999999999999999999",
            "1-2-3",
            "99999999999999999999-1",
        ] {
            let of_a_broker = format!("{broker}/{text}");
            for text in [text, &of_a_broker] {
                let error = text.parse::<ConsistencyToken>().unwrap_err();
                assert!(error.to_string().contains("consistency_token"), "{text}");
            }
        }
        for nobodys in ["1790000000000-3", "/1790000000000-3", "x/1790000000000-3"] {
            assert!(nobodys.parse::<ConsistencyToken>().is_err(), "{nobodys}");
        }
    }

    #[test]
    fn positions_are_in_the_order_of_the_stream() {
        let at = |text: &str| text.parse::<Position>().unwrap();
        assert!(at("9-9") < at("10-0") && at("10-2") < at("10-10"));
    }
}
