//! Members that an object of JSON names twice. JSON's own readers take one of them in silence [RFC 8259 §4].

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// The members that are named twice anywhere in a text of JSON; none where it is no JSON.
pub(super) fn named_twice(json: &str) -> BTreeSet<String> {
    let read: Result<Twice, _> = serde_json::from_str(json);
    read.map_or_else(|_| BTreeSet::new(), |Twice(names)| names)
}

struct Twice(BTreeSet<String>);

impl<'de> Deserialize<'de> for Twice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Twice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Twice, A::Error> {
        let mut names = BTreeSet::new();
        let mut twice = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                twice.insert(name.clone());
            }
            names.insert(name);
            twice.extend(map.next_value::<Twice>()?.0);
        }
        Ok(Twice(twice))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Twice, A::Error> {
        let mut twice = BTreeSet::new();
        while let Some(Twice(below)) = elements.next_element()? {
            twice.extend(below);
        }
        Ok(Twice(twice))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Twice, E> {
        Ok(Twice(BTreeSet::new()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Twice, E> {
        Ok(Twice(BTreeSet::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Twice, E> {
        Ok(Twice(BTreeSet::new()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Twice, E> {
        Ok(Twice(BTreeSet::new()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Twice, E> {
        Ok(Twice(BTreeSet::new()))
    }

    fn visit_unit<E>(self) -> Result<Twice, E> {
        Ok(Twice(BTreeSet::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_named_twice_is_found_wherever_it_is() {
        let found = |json: &str| named_twice(json).into_iter().collect::<Vec<_>>();
        for whole in [
            r#"{"a":{"b":1},"b":[{"b":null},{"b":1.5}],"c":"a","d":-1,"e":true}"#,
            "7",
            "nonsense",
            r#"{"a":"#,
        ] {
            assert!(found(whole).is_empty(), "{whole}");
        }
        assert_eq!(found(r#"{"a":1,"b":2,"a":1}"#), ["a"]);
        assert_eq!(found(r#"{"x":[{"y":{"a":1,"\u0061":2}}]}"#), ["a"]);
        assert_eq!(found(r#"{"x":{"b":1,"b":2},"x":{}}"#), ["b", "x"]);
    }
}
