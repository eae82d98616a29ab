//! Labels, external keys, on whose behalf.

use std::collections::HashMap;

use super::*;

fn label(key: &str, value: &str) -> HashMap<String, String> {
    HashMap::from([(key.to_owned(), value.to_owned())])
}

fn labels(number: usize) -> HashMap<String, String> {
    (0..number)
        .map(|n| (format!("label-{n}"), String::new()))
        .collect()
}

#[test]
fn what_a_caller_attaches_to_a_grant_is_checked() {
    let cases: &[Case<proto::GrantRequest>] = &[
        ("a label", |r| r.labels = label("team", "shop"), &[]),
        ("one without a value", |r| r.labels = label("team", ""), &[]),
        (
            "one without a key",
            |r| r.labels = label("", "shop"),
            &["labels[\"\"]"],
        ),
        (
            "a key of other characters",
            |r| r.labels = label("a=b", ""),
            &["labels[\"a=b\"]"],
        ),
        (
            "too long a key",
            |r| r.labels = label(&"k".repeat(64), ""),
            &["labels[\"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\"]"],
        ),
        (
            "the longest value",
            |r| r.labels = label("team", &"ä".repeat(256)),
            &[],
        ),
        (
            "too long a value",
            |r| r.labels = label("team", &"ä".repeat(257)),
            &["labels[\"team\"]"],
        ),
        ("the most labels", |r| r.labels = labels(16), &[]),
        ("too many labels", |r| r.labels = labels(17), &["labels"]),
        (
            "an external key",
            |r| r.external_key = "order 66".to_owned(),
            &[],
        ),
        (
            "the longest external key",
            |r| r.external_key = "k".repeat(128),
            &[],
        ),
        (
            "too long an external key",
            |r| r.external_key = "k".repeat(129),
            &["external_key"],
        ),
        (
            "a line in an external key",
            |r| r.external_key = "a\nb".to_owned(),
            &["external_key"],
        ),
        ("for an object id", |r| r.on_behalf_of = ID.to_owned(), &[]),
        (
            "for a user",
            |r| r.on_behalf_of = "ada@contoso.example".to_owned(),
            &[],
        ),
        (
            "for anybody",
            |r| r.on_behalf_of = "ada".to_owned(),
            &["on_behalf_of"],
        ),
        ("only to see", |r| r.validate_only = true, &[]),
    ];
    for (name, change, expected) in cases {
        let mut request = a_grant();
        change(&mut request);
        assert_eq!(fields(grant(&request, now())), *expected, "{name}");
    }
}
