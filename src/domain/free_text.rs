//! Whether a text that a caller wrote says anything.

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Whether a text has at least one letter or decimal digit, of any script, that a reader can see.
///
/// Blanks, marks and punctuation say nothing. Neither do characters that are not drawn: zero-width characters, direction
/// marks, variation selectors, tags, and the fillers of Hangul, which Unicode counts as letters but calls
/// default-ignorable.
#[must_use]
pub fn says_something(text: &str) -> bool {
    let not_drawn = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let categories = CodePointMapData::<GeneralCategory>::new();
    text.chars().any(|c| {
        let category = categories.get(c);
        let is_letter = GeneralCategoryGroup::Letter.contains(category);
        (is_letter || category == GeneralCategory::DecimalNumber) && !not_drawn.contains(c)
    })
}

/// Whether a text has at least one character that is drawn: no blank, no control character, and none that Unicode calls
/// default-ignorable.
#[must_use]
pub fn can_be_seen(text: &str) -> bool {
    let not_drawn = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let is_drawn = |c: char| !c.is_whitespace() && !c.is_control() && !not_drawn.contains(c);
    text.chars().any(is_drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_letter_or_digit_of_any_script_is_enough() {
        for text in [
            "INC-4711",
            "7",
            "é",
            "ß",
            "緊急",
            "مهم",
            "срочно",
            "긴급",
            "१",
            "\u{200b}x",
        ] {
            assert!(says_something(text), "{text:?}");
        }
    }

    /// Every character that Unicode calls default-ignorable, alone and all together, and what else is no word.
    #[test]
    fn what_nobody_can_read_says_nothing() {
        let not_drawn = CodePointSetData::new::<DefaultIgnorableCodePoint>();
        let all: String = ('\0'..=char::MAX)
            .filter(|c| not_drawn.contains(*c))
            .collect();
        for expected in [
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{17b4}',
            '\u{180e}',
            '\u{200b}',
            '\u{200e}',
            '\u{202e}',
            '\u{2060}',
            '\u{2069}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{e0041}',
            '\u{e0100}',
        ] {
            assert!(all.contains(expected), "{expected:?}");
        }
        for c in all.chars() {
            assert!(!says_something(c.encode_utf8(&mut [0; 4])), "{c:?}");
            assert!(!can_be_seen(c.encode_utf8(&mut [0; 4])), "{c:?}");
        }
        for text in [
            &*all,
            "",
            " \t\n",
            "\u{a0}\u{2003}\u{3000}",
            "-",
            "!?…",
            "\u{2800}",
            "\u{301}",
            "\u{1}",
        ] {
            assert!(!says_something(text), "{text:?}");
        }
    }
}
